"""One transfer with boto3; prints its seconds. Arguments: endpoint, bucket, prefix, what to do, a path."""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config

THREADS = 16

endpoint, bucket, prefix, what, *paths = sys.argv[1:]
config = Config(max_pool_connections=THREADS, s3={"addressing_style": "path"})
s3 = boto3.client("s3", endpoint_url=endpoint, config=config)
big, many = f"{prefix}/boto3/big.bin", f"{prefix}/boto3/many/"


def keys(under):
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=under)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def up_many(folder):
    files = [os.path.join(at, name) for at, _, names in os.walk(folder) for name in names]

    def put(path):
        with open(path, "rb") as file:
            s3.put_object(Bucket=bucket, Key=many + os.path.relpath(path, folder), Body=file.read())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(put, files))


def down_many(folder):
    def get(key):
        path = os.path.join(folder, key.removeprefix(many))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        with open(path, "wb") as file:
            file.write(body)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(get, keys(many)))


def clear():
    found = keys(prefix + "/")
    for first in range(0, len(found), 1000):
        batch = [{"Key": key} for key in found[first : first + 1000]]
        s3.delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})


steps = {
    "up-big": lambda path: s3.upload_file(path, bucket, big),
    "down-big": lambda path: s3.download_file(bucket, big, path),
    "up-many": up_many,
    "down-many": down_many,
    "clear": clear,
}
begun = time.perf_counter()
steps[what](*paths)
print(time.perf_counter() - begun)
