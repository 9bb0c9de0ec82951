//! What EC2 says of instances: many of them in one call. It is not remembered: an instance attests
//! once, and when it comes again its state and its tags count as they are then.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_ec2::error::ProvideErrorMetadata;
use aws_sdk_ec2::operation::RequestId;
use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::{self, Filter};
use spire_core::remote::{Coalescer, Lookup, Pace};

use super::CloudError;

/// How long a question waits for others.
const WINDOW: Duration = Duration::from_millis(40);
/// Most instances in one call.
const LARGEST: usize = 500;
/// Most calls under way in one account and region.
const PARALLEL: usize = 4;
/// Eight calls go out at once, then one each six seconds, unless there are enough questions to
/// fill one: a thousand instances that boot within a minute take no more than twenty.
const PACE: Pace = Pace { burst: 8, interval: Duration::from_secs(6) };
const _: () = assert!(
    PACE.burst as u64 + 60 / PACE.interval.as_secs() + (1000 / LARGEST) as u64 <= 20,
    "a thousand instances within a minute take no more than twenty calls"
);
/// Most pages of one answer.
const MAX_PAGES: usize = 50;

/// An instance that is pending or runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) image_id: Option<String>,
    pub(crate) instance_type: Option<String>,
    pub(crate) vpc_id: Option<String>,
    pub(crate) subnet_id: Option<String>,
    /// Keys and values.
    pub(crate) tags: Vec<(String, String)>,
    /// IDs and names.
    pub(crate) security_groups: Vec<(Option<String>, Option<String>)>,
    /// The ARN of its instance profile.
    pub(crate) profile: Option<String>,
    pub(crate) root_device_type: Option<String>,
    pub(crate) root_device_name: Option<String>,
    pub(crate) volumes: Vec<Volume>,
    pub(crate) interfaces: Vec<Interface>,
}

/// A volume of EBS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) device_name: String,
    /// When it was attached, in Unix seconds.
    pub(crate) attached: Option<i64>,
}

/// A network interface that is attached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) device_index: i32,
    /// When it was attached, in Unix seconds.
    pub(crate) attached: Option<i64>,
}

/// What EC2 knows of an ID.
#[derive(Debug, Clone)]
pub(crate) enum Found {
    /// Exactly one instance that is pending or runs.
    One(Arc<Instance>),
    /// An instance that is neither, or more than one.
    NotOne,
    /// There is no instance with this ID.
    Nothing,
}

/// What EC2 says, and what it called the request.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) found: Found,
    pub(crate) request_id: Option<Arc<str>>,
}

/// The instances of an account and region.
pub(crate) struct Instances(Coalescer<Describe>);

impl Instances {
    pub(super) fn new(client: aws_sdk_ec2::Client) -> Self {
        Self(Coalescer::new(Describe(client), WINDOW, LARGEST, PARALLEL).paced(PACE))
    }

    /// # Errors
    /// Where EC2 cannot be asked.
    pub(crate) async fn describe(&self, id: &str) -> Result<Answer, CloudError> {
        let answer = self.0.get(id.to_owned()).await?;
        Ok(answer.unwrap_or(Answer { found: Found::NotOne, request_id: None }))
    }
}

struct Describe(aws_sdk_ec2::Client);

#[async_trait]
impl Lookup for Describe {
    type Key = String;
    type Value = Answer;
    type Error = CloudError;

    async fn look_up(&self, ids: Vec<String>) -> Result<HashMap<String, Answer>, CloudError> {
        let mut answers = HashMap::with_capacity(ids.len());
        let mut rounds = vec![ids];
        while let Some(ids) = rounds.pop() {
            match self.ask(&ids, &mut answers).await? {
                Asked::Answered => {}
                Asked::Unknown { ids: unknown, request_id } => {
                    let (unknown, known) = apart(ids, &unknown);
                    let nothing = Answer { found: Found::Nothing, request_id };
                    if unknown.is_empty() {
                        // EC2 does not say which: ask for halves until there is one left.
                        rounds.extend(halves(known, &nothing, &mut answers));
                    } else {
                        answers.extend(unknown.into_iter().map(|id| (id, nothing.clone())));
                        rounds.extend(Some(known).filter(|known| !known.is_empty()));
                    }
                }
            }
        }
        Ok(answers)
    }
}

/// How a call for several instances went.
enum Asked {
    Answered,
    /// Some IDs are not known, so that nothing was said of the others; the text names them.
    Unknown {
        ids: String,
        request_id: Option<Arc<str>>,
    },
}

impl Describe {
    async fn ask(
        &self,
        ids: &[String],
        answers: &mut HashMap<String, Answer>,
    ) -> Result<Asked, CloudError> {
        let states = Filter::builder().name("instance-state-name").values("pending");
        let call = self.0.describe_instances().set_instance_ids(Some(ids.to_vec()));
        let call = call.filters(states.values("running").build());
        let asked: HashSet<&String> = ids.iter().collect();
        let mut next = None;
        for _ in 0..MAX_PAGES {
            let page = match call.clone().set_next_token(next.take()).send().await {
                Ok(page) => page,
                Err(error) if is_unknown(error.code()) => {
                    let ids = error.message().unwrap_or_default().to_owned();
                    let request_id = error.request_id().map(Arc::from);
                    return Ok(Asked::Unknown { ids, request_id });
                }
                Err(error) => return Err(CloudError::of("DescribeInstances", &error)),
            };
            let request_id: Option<Arc<str>> = page.request_id().map(Arc::from);
            let found = page.reservations().iter().flat_map(|reservation| reservation.instances());
            for instance in found {
                let id = instance.instance_id().unwrap_or_default().to_owned();
                if !asked.contains(&id) {
                    return Err(CloudError::new(format!(
                        "DescribeInstances told of {id:?}, which was not asked for"
                    )));
                }
                let found = match is_alive(instance) && !answers.contains_key(&id) {
                    true => Found::One(Arc::new(read(instance))),
                    false => Found::NotOne,
                };
                answers.insert(id, Answer { found, request_id: request_id.clone() });
            }
            next = page.next_token().filter(|token| !token.is_empty()).map(ToOwned::to_owned);
            if next.is_none() {
                // Those of which nothing was said are there and do not run.
                for id in ids {
                    let said = || Answer { found: Found::NotOne, request_id: request_id.clone() };
                    answers.entry(id.clone()).or_insert_with(said);
                }
                return Ok(Asked::Answered);
            }
        }
        Err(CloudError::new(format!("DescribeInstances gave more than {MAX_PAGES} pages")))
    }
}

fn is_unknown(code: Option<&str>) -> bool {
    matches!(code, Some("InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed"))
}

/// The IDs that a message names, and the others.
fn apart(ids: Vec<String>, message: &str) -> (Vec<String>, Vec<String>) {
    let word = |character: char| !character.is_ascii_alphanumeric() && character != '-';
    let named: HashSet<&str> = message.split(word).collect();
    ids.into_iter().partition(|id| named.contains(id.as_str()))
}

/// Both halves of `ids`; the only one that is left is the one that is not known.
fn halves(
    mut ids: Vec<String>,
    nothing: &Answer,
    answers: &mut HashMap<String, Answer>,
) -> Vec<Vec<String>> {
    if ids.len() > 1 {
        let rest = ids.split_off(ids.len() / 2);
        return vec![ids, rest];
    }
    answers.extend(ids.into_iter().map(|id| (id, nothing.clone())));
    Vec::new()
}

fn is_alive(instance: &types::Instance) -> bool {
    let state = instance.state().and_then(|state| state.name());
    matches!(state, Some(types::InstanceStateName::Pending | types::InstanceStateName::Running))
}

fn read(instance: &types::Instance) -> Instance {
    let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
    let seconds = |time: Option<&DateTime>| time.map(DateTime::secs);
    let tags = instance.tags().iter().filter_map(|tag| {
        Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))
    });
    let groups = instance.security_groups().iter();
    let volumes = instance.block_device_mappings().iter().filter_map(|mapping| {
        let attached = seconds(mapping.ebs()?.attach_time());
        Some(Volume { device_name: mapping.device_name()?.to_owned(), attached })
    });
    let interfaces = instance.network_interfaces().iter().filter_map(|interface| {
        let attachment = interface.attachment()?;
        let attached = seconds(attachment.attach_time());
        Some(Interface { device_index: attachment.device_index()?, attached })
    });
    Instance {
        image_id: owned(instance.image_id()),
        instance_type: instance.instance_type().map(|kind| kind.as_str().to_owned()),
        vpc_id: owned(instance.vpc_id()),
        subnet_id: owned(instance.subnet_id()),
        tags: tags.collect(),
        security_groups: groups
            .map(|group| (owned(group.group_id()), owned(group.group_name())))
            .collect(),
        profile: instance.iam_instance_profile().and_then(|profile| owned(profile.arn())),
        root_device_type: instance.root_device_type().map(|kind| kind.as_str().to_owned()),
        root_device_name: owned(instance.root_device_name()),
        volumes: volumes.collect(),
        interfaces: interfaces.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_ids_are_read_out_of_the_message() {
        let ids = || ["i-1", "i-2", "i-12"].map(str::to_owned).to_vec();
        let cases = [
            ("The instance ID 'i-12' does not exist", ["i-12"].as_slice()),
            ("The instance IDs 'i-1, i-2' do not exist", &["i-1", "i-2"]),
            ("Invalid id: \"i-2\"", &["i-2"]),
            ("something else", &[]),
        ];
        for (message, expected) in cases {
            let (unknown, known) = apart(ids(), message);
            assert_eq!(unknown, expected, "{message}");
            assert_eq!(known.len(), 3 - expected.len());
        }
    }
}
