"""Puts an instance with a tag and an instance profile into a LocalStack, and a role to assume."""

import json
import sys

import boto3

KEY = {"aws_access_key_id": "000000000000", "aws_secret_access_key": "secret"}


def client(service):
    return boto3.client(service, endpoint_url=sys.argv[1], region_name="us-west-2", **KEY)


iam, ec2 = client("iam"), client("ec2")
for role in ["attest", "web"]:
    iam.create_role(RoleName=role, AssumeRolePolicyDocument="{}")
iam.create_instance_profile(InstanceProfileName="web", Path="/team/")
iam.add_role_to_instance_profile(InstanceProfileName="web", RoleName="web")
image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
tags = [{"ResourceType": "instance", "Tags": [{"Key": "fleet", "Value": "web"}]}]
started = ec2.run_instances(
    ImageId=image,
    MinCount=1,
    MaxCount=1,
    InstanceType="t3.micro",
    IamInstanceProfile={"Name": "web"},
    TagSpecifications=tags,
)
instance = started["Instances"][0]
print(
    json.dumps(
        {
            "id": instance["InstanceId"],
            "image": image,
            "zone": instance["Placement"]["AvailabilityZone"],
            "launched": instance["LaunchTime"].strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
)
