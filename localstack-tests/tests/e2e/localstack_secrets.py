"""Puts a root CA into secrets of a LocalStack, in two regions, and makes a role to assume."""

import datetime
import json
import sys

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

KEY = {"aws_access_key_id": "000000000000", "aws_secret_access_key": "secret"}


def client(service, region):
    return boto3.client(service, endpoint_url=sys.argv[1], region_name=region, **KEY)


def put(region, name, text):
    made = client("secretsmanager", region).create_secret(Name=name, SecretString=text)
    return made["ARN"]


key = ec.generate_private_key(ec.SECP384R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
now = datetime.datetime.now(datetime.timezone.utc)
key_id = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
root = (
    x509.CertificateBuilder()
    .subject_name(name)
    .issuer_name(name)
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(now - datetime.timedelta(hours=1))
    .not_valid_after(now + datetime.timedelta(days=30))
    .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    .add_extension(key_id, critical=False)
    .sign(key, hashes.SHA384())
)
root = root.public_bytes(serialization.Encoding.PEM).decode()
key = key.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()
client("iam", "us-west-2").create_role(RoleName="signer", AssumeRolePolicyDocument="{}")
put("us-west-2", "upstream/cert", root)
print(
    json.dumps(
        {
            "root": root,
            "id": key_id.digest.hex(),
            "key": put("eu-west-1", "upstream/key", key),
        }
    )
)
