"""Makes a root CA in the Private CA of a moto server."""

import json
import sys

import boto3

pca = boto3.client(
    "acm-pca",
    endpoint_url=sys.argv[1],
    region_name="us-west-2",
    aws_access_key_id="000000000000",
    aws_secret_access_key="secret",
)
made = pca.create_certificate_authority(
    CertificateAuthorityType="ROOT",
    CertificateAuthorityConfiguration={
        "KeyAlgorithm": "RSA_2048",
        "SigningAlgorithm": "SHA512WITHRSA",
        "Subject": {"Organization": "Acme", "CommonName": "root"},
    },
)
authority = {"CertificateAuthorityArn": made["CertificateAuthorityArn"]}
csr = pca.get_certificate_authority_csr(**authority)["Csr"]
issued = pca.issue_certificate(
    **authority,
    Csr=csr.encode(),
    SigningAlgorithm="SHA512WITHRSA",
    TemplateArn="arn:aws:acm-pca:::template/RootCACertificate/V1",
    Validity={"Type": "DAYS", "Value": 30},
)
root = pca.get_certificate(**authority, CertificateArn=issued["CertificateArn"])["Certificate"]
pca.import_certificate_authority_certificate(**authority, Certificate=root.encode())
print(json.dumps({"arn": made["CertificateAuthorityArn"], "root": root}))
