//! Messages as JSON, in the form that the command lines print: field names as in the `.proto`
//! files, every field present, keys sorted, 64-bit numbers as texts, bytes in base64.

use std::sync::LazyLock;

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, SerializeOptions};
use serde_json::{Map, Number, Value};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(super::DESCRIPTORS).expect("the descriptors were compiled with the code")
});

/// The message as a JSON value; members that are not set are left out.
pub fn to_json<M: Message + Name>(message: &M) -> Value {
    let Some(descriptor) = POOL.get_message_by_name(&M::full_name()) else { return Value::Null };
    let Ok(message) = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()) else {
        return Value::Null;
    };
    let options = SerializeOptions::new()
        .skip_default_fields(false)
        .use_proto_field_name(true)
        .stringify_64_bit_integers(true);
    let value = message.serialize_with_options(serde_json::value::Serializer, &options);
    sorted(value.unwrap_or_default())
}

/// Reads a message from JSON in either spelling of its fields; unknown ones are ignored.
///
/// # Errors
/// Says what no field of the message can be.
pub fn from_json<M: Message + Name + Default>(text: &str) -> Result<M, String> {
    let descriptor =
        POOL.get_message_by_name(&M::full_name()).ok_or("the message has no descriptor")?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor, &mut reader, &options)
        .map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// One line of JSON in which `<`, `>` and `&` are escaped, as existing scripts find it.
pub fn line(value: &Value) -> String {
    // These three letters occur only inside texts, never in JSON's own syntax.
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.into_iter().filter(|(_, value)| !value.is_null()).collect();
            members.sort_by(|left, right| left.0.cmp(&right.0));
            let members = members.into_iter().map(|(name, value)| (name, sorted(value)));
            Value::Object(Map::from_iter(members))
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Number(number) => Value::Number(plain(number)),
        other => other,
    }
}

/// Claims travel as doubles; a whole one is written without `.0`, as far as doubles are exact.
fn plain(number: Number) -> Number {
    const EXACT: f64 = (1_i64 << 53) as f64;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < EXACT => {
            Number::from(value as i64)
        }
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use prost_types::value::Kind;

    use super::*;
    use crate::wire::entry::{BatchDeleteEntryRequest, CountEntriesResponse};
    use crate::wire::types::{Entry, JoinToken, Selector};
    use crate::wire::workload::ValidateJwtsvidResponse;

    #[test]
    fn numbers_texts_and_absent_members_have_their_forms() {
        let token = JoinToken { value: "a<b".into(), expires_at: 1_767_225_600 };
        assert_eq!(line(&to_json(&token)), r#"{"expires_at":"1767225600","value":"a\u003cb"}"#);
        assert_eq!(line(&to_json(&CountEntriesResponse { count: 5 })), r#"{"count":5}"#);
        let selectors = vec![Selector { r#type: "unix".into(), value: "uid:1".into() }];
        let entry = to_json(&Entry { selectors, ..Entry::default() });
        assert_eq!(entry["selectors"][0]["value"], "uid:1");
        assert!(entry.get("spiffe_id").is_none() && entry.get("additional_attributes").is_none());
        assert_eq!(entry["x509_svid_ttl"], 0);
        assert_eq!(entry["created_at"], "0");
    }

    #[test]
    fn whole_numbers_of_claims_have_no_fraction() {
        let number = |value| prost_types::Value { kind: Some(Kind::NumberValue(value)) };
        let fields =
            [("exp".to_owned(), number(1_767_225_600.0)), ("half".to_owned(), number(0.5))];
        let claims = Some(prost_types::Struct { fields: fields.into() });
        let response = ValidateJwtsvidResponse { spiffe_id: "spiffe://td/a".into(), claims };
        assert_eq!(
            line(&to_json(&response)),
            r#"{"claims":{"exp":1767225600,"half":0.5},"spiffe_id":"spiffe://td/a"}"#
        );
    }

    #[test]
    fn requests_are_read_whatever_else_they_hold() {
        let request: BatchDeleteEntryRequest = from_json(r#"{"ids":["a","b"],"more":1}"#).unwrap();
        assert_eq!(request.ids, ["a", "b"]);
        assert!(from_json::<BatchDeleteEntryRequest>(r#"{"ids":1}"#).is_err());
    }
}
