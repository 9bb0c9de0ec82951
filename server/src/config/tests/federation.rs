//! The block `federation`, in its present and former forms.

use super::*;

#[test]
fn mistakes_in_federation_have_spires_sentences() {
    let web = "bundle_endpoint_profile \"https_web\" {}";
    let url = "bundle_endpoint_url = \"https://x\"";
    let with = |body: &str| {
        with_server(&format!("federation {{ federates_with \"x.org\" {{ {body} }} }}"))
    };
    let relationship = "error parsing federation relationship for trust domain \"x.org\": ";
    let named = "federation.federates_with[\"x.org\"].bundle_endpoint_url";
    assert_refused(&with(web), &format!("{named} must be configured"));
    let plain = format!("bundle_endpoint_url = \"http://x\" {web}");
    assert_refused(
        &with(&plain),
        &format!("{named} must use the HTTPS protocol; URL found: \"http://x\""),
    );
    assert_refused(
        &with(url),
        "federation configuration for trust domain \"x.org\": missing bundle endpoint configuration",
    );
    let no_id = format!("{url} bundle_endpoint_profile \"https_spiffe\" {{}}");
    assert_refused(
        &with(&no_id),
        &format!("{relationship}could not get endpoint SPIFFE ID: cannot be empty"),
    );
    let two = format!(
        "{url} {web} bundle_endpoint_profile \"https_spiffe\" {{ endpoint_spiffe_id = \"spiffe://x.org/e\" }}"
    );
    assert_refused(&with(&two), "exactly one bundle endpoint profile is expected");
    let none = format!("{url} bundle_endpoint_profile {{}}");
    assert_refused(&with(&none), "exactly one bundle endpoint profile is expected");

    let endpoint =
        |body: &str| with_server(&format!("federation {{ bundle_endpoint {{ {body} }} }}"));
    assert_refused(
        &endpoint("profile \"https_web\" {}"),
        "malformed https_web profile configuration: 'acme' or 'serving_cert_file' is required",
    );
    assert_refused(
        &endpoint("profile \"https_web\" { acme {} } acme {}"),
        "acme and profile cannot both be configured",
    );
    assert_refused(
        &endpoint("refresh_hint = \"x\""),
        "could not parse refresh_hint \"x\": time: invalid duration",
    );
    assert_refused(
        &endpoint("profile \"ftp\" {}"),
        "unknown bundle endpoint profile configured: \"ftp\"",
    );
    assert_refused(
        &endpoint("zz = 1"),
        "unknown configuration detected (server.federation.bundle_endpoint.zz",
    );
}

#[test]
fn federation_is_read_in_its_present_and_former_forms() {
    let config = checked(
        r#"federation {
            bundle_endpoint { address = "127.0.0.1" port = 8443 profile "https_web" {
                acme { domain_name = "d" email = "e" tos_accepted = true }
                serving_cert_file { cert_file_path = "c" key_file_path = "k" } } }
            federates_with "a.org" { bundle_endpoint_url = "https://a.org/b"
                bundle_endpoint_profile "https_spiffe" { endpoint_spiffe_id = "spiffe://a.org/e" } }
            federates_with "b.org" { bundle_endpoint { address = "b.org" use_web_pki = true } }
        }
        experimental { federates_with "c.org" {
            bundle_endpoint_address = "c.org" bundle_endpoint_port = 8443 } }"#,
    );
    let endpoint = config.federation.bundle_endpoint.unwrap();
    assert!(matches!(endpoint.profile, BundleEndpointProfile::Acme(acme) if acme.tos_accepted));
    let told: Vec<_> = config
        .federation
        .federates_with
        .iter()
        .map(|with| (with.trust_domain.as_str(), with.bundle_endpoint_url.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("a.org", "https://a.org/b"),
            ("b.org", "https://b.org:443"),
            ("c.org", "https://c.org:8443")
        ]
    );
    let FederationProfile::HttpsSpiffe { endpoint_spiffe_id } =
        &config.federation.federates_with[2].profile
    else {
        panic!("the former default is an SVID")
    };
    assert_eq!(endpoint_spiffe_id.as_str(), "spiffe://c.org/spire/server");
}
