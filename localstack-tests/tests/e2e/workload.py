"""A workload that uses the package spiffe: workload.py fetch|watch ENDPOINT.

fetch asks for everything once, and has everything checked. watch prints a line for each update,
until it is stopped. Certificates are checked against the bundle that came with them by the package
cryptography.
"""

import datetime
import sys
import threading

from spiffe import JwtSvid, TrustDomain, WorkloadApiClient

DOMAIN = TrustDomain("example.org")
SECONDS = 10


def check(svid, bundles):
    """Fails unless the SVID is valid now and leads to a root of its trust domain."""
    chain = list(svid.cert_chain)
    issuers = chain[1:]
    for certificate in chain:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if not begin <= datetime.datetime.now(datetime.timezone.utc) <= end:
            raise ValueError(f"valid from {begin} to {end}")
    for certificate, issuer in zip(chain, issuers):
        certificate.verify_directly_issued_by(issuer)
    for root in bundles.get_bundle_for_trust_domain(DOMAIN).x509_authorities:
        if root.subject == chain[-1].issuer:
            try:
                return chain[-1].verify_directly_issued_by(root)
            except Exception:  # another root of the same name
                continue
    raise ValueError("it leads to no root of the bundle")


def fetch(client):
    context = client.fetch_x509_context(timeout=SECONDS)
    check(context.default_svid, context.x509_bundle_set)
    check(context.default_svid, client.fetch_x509_bundles(timeout=SECONDS))
    print("X.509", context.default_svid.spiffe_id)

    token = client.fetch_jwt_svid({"backend"}, timeout=SECONDS).token
    print("JWT", client.validate_jwt_svid(token, "backend", timeout=SECONDS).spiffe_id)
    bundle = client.fetch_jwt_bundles(timeout=SECONDS).get_bundle_for_trust_domain(DOMAIN)
    print("JWT", JwtSvid.parse_and_validate(token, bundle, {"backend"}).spiffe_id)
    try:
        client.validate_jwt_svid(token, "frontend", timeout=SECONDS)
    except Exception as error:
        print("refused", error)


def watch(client):
    held = []

    def update(context):
        try:
            # What was held until now has been valid until now.
            for svid, bundles in held:
                check(svid, bundles)
            held[:] = [(context.default_svid, context.x509_bundle_set)]
            check(*held[0])
            leaf = context.default_svid.leaf
            print("update", context.default_svid.spiffe_id, leaf.serial_number, flush=True)
        except Exception as error:
            failed(error)

    def failed(error):
        print("gap", repr(error), flush=True)

    client.stream_x509_contexts(update, failed, retry_connect=False)
    threading.Event().wait()


command, endpoint = sys.argv[1:]
{"fetch": fetch, "watch": watch}[command](WorkloadApiClient(endpoint))
