"""An S3 that is not ours, for as long as standard input is open. Says where it is, and the keys of its one user."""

import json
import sys

import boto3
import moto.settings
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
server.start()
host, port = server.get_host_and_port()
given = {
    "endpoint_url": f"http://{host}:{port}",
    "region_name": "us-east-1",
    "aws_access_key_id": "x",
    "aws_secret_access_key": "x",
}
boto3.client("s3", **given).create_bucket(Bucket="suite")
iam = boto3.client("iam", **given)
iam.create_user(UserName="suite")
rule = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
iam.put_user_policy(UserName="suite", PolicyName="all", PolicyDocument=json.dumps(rule))
key = iam.create_access_key(UserName="suite")["AccessKey"]
if sys.argv[1] == "guarded":
    # From now on signatures and rights count.
    moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
print("serving", f"{host}:{port}", key["AccessKeyId"], key["SecretAccessKey"], flush=True)
sys.stdin.read()
