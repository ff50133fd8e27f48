"""An S3 that is not ours, for as long as standard input is open. Says where it is, and the keys of its one user."""

import json
import sys
import threading

import boto3
import moto.settings
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

app = DomainDispatcherApplication(create_backend_app)


def google(environ, start):
    """Google's names for the same headers; who signs nothing is taken for a user, whose signature nobody checks."""
    if not environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):
        scope = "Credential=x/20260101/us-east-1/s3/aws4_request"
        environ["HTTP_AUTHORIZATION"] = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=x"
    for name in [name for name in environ if name.startswith("HTTP_X_GOOG_")]:
        environ[name.replace("X_GOOG", "X_AMZ")] = environ.pop(name)
    return app(environ, start)


server = make_server("127.0.0.1", 0, google if sys.argv[1] == "google" else app, threaded=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
host, port = server.host, server.port
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
