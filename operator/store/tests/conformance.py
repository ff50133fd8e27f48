"""What boto3 does with the store, step by step. Arguments: endpoint, then key id and secret of the administrator, and
of the namespaces "one" and "two". Each step is a function; all run, and the failed ones are named at the end."""

import hashlib, io, sys, traceback, urllib.request, urllib.error
import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import Config
from botocore.exceptions import ClientError, MissingDependencyException

endpoint, *keys = sys.argv[1:]
BUCKET = "cultivar"
MIB = 1024 * 1024


def client(index, **config):
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id=keys[2 * index], aws_secret_access_key=keys[2 * index + 1],
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **config))


admin, one, two = client(0), client(1), client(2)


def code(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "no error"


def put(key, body, s3=one, **more):
    return s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)


def get(key, s3=one, **more):
    return s3.get_object(Bucket=BUCKET, Key=key, **more)["Body"].read()


def buckets():
    assert [b["Name"] for b in one.list_buckets()["Buckets"]] == [BUCKET]
    one.head_bucket(Bucket=BUCKET)
    assert one.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None
    admin.create_bucket(Bucket=BUCKET)
    admin.create_bucket(Bucket=BUCKET)
    assert code(admin.create_bucket, Bucket="another") == "TooManyBuckets"
    assert code(one.create_bucket, Bucket=BUCKET) == "AccessDenied"
    assert code(admin.head_bucket, Bucket="another") == "404"
    assert code(admin.put_object, Bucket="another", Key="x", Body=b"") == "NoSuchBucket"
    assert code(admin.delete_bucket, Bucket=BUCKET) == "AccessDenied"
    assert code(admin.put_bucket_policy, Bucket=BUCKET, Policy="{}") == "AccessDenied"


def objects():
    for size in (0, 1, 16 * 1024, 16 * 1024 + 1, 5 * MIB + 3):
        body = hashlib.sha256(str(size).encode()).digest() * (size // 32 + 1)
        body = body[:size]
        done = put("one/object", body, ContentType="text/x-test", Metadata={"a": "1", "word": "plain text"}, CacheControl="no-cache")
        assert done["ETag"] == '"%s"' % hashlib.md5(body).hexdigest()
        assert done["ChecksumCRC32"], done
        head = one.head_object(Bucket=BUCKET, Key="one/object", ChecksumMode="ENABLED")
        assert head["ContentLength"] == size and head["ContentType"] == "text/x-test" and head["Metadata"] == {"a": "1", "word": "plain text"}
        assert head["CacheControl"] == "no-cache" and head["ChecksumCRC32"] == done["ChecksumCRC32"], head
        assert get("one/object") == body
        if size > 100:
            for text, want in (("bytes=0-0", body[:1]), ("bytes=10-", body[10:]), ("bytes=-7", body[-7:]), ("bytes=5-%d" % (size + 99), body[5:])):
                answer = one.get_object(Bucket=BUCKET, Key="one/object", Range=text)
                assert answer["Body"].read() == want and answer["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert code(one.get_object, Bucket=BUCKET, Key="one/object", Range="bytes=%d-" % size) == "InvalidRange"
    over = one.get_object(Bucket=BUCKET, Key="one/object", ResponseContentType="x/y")
    assert over["ContentType"] == "x/y"
    one.delete_object(Bucket=BUCKET, Key="one/object")
    one.delete_object(Bucket=BUCKET, Key="one/object")
    assert code(one.get_object, Bucket=BUCKET, Key="one/object") == "NoSuchKey"
    assert code(one.head_object, Bucket=BUCKET, Key="one/object") == "404"


def checksums():
    import base64, zlib
    for name in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        try:
            done = put("one/sum", b"hello" * 9999, ChecksumAlgorithm=name)
        except MissingDependencyException as error:
            print("not tested:", name, error)
            continue
        assert done["Checksum" + name]
        assert get("one/sum", ChecksumMode="ENABLED") == b"hello" * 9999
    wrong = base64.b64encode(b"\0\0\0\0").decode()
    assert code(put, "one/bad", b"x", ChecksumCRC32=wrong) == "BadDigest"
    assert code(put, "one/bad", b"x" * 100000, ChecksumCRC32=wrong) == "BadDigest"
    assert code(put, "one/bad", b"x", ContentMD5=base64.b64encode(b"0" * 16).decode()) == "BadDigest"
    assert code(one.head_object, Bucket=BUCKET, Key="one/bad") == "404"
    body = b"y" * 70000
    put("one/good", body, ContentMD5=base64.b64encode(hashlib.md5(body).digest()).decode())
    signed = client(1, request_checksum_calculation="when_required")
    put("one/plain", body, s3=signed)
    assert get("one/plain") == body


def conditions():
    done = put("one/c", b"1")
    etag = done["ETag"]
    assert code(put, "one/c", b"2", IfNoneMatch="*") == "PreconditionFailed"
    assert code(put, "one/c", b"2", IfMatch='"0"') == "PreconditionFailed"
    assert code(put, "one/absent", b"2", IfMatch='"0"') == "NoSuchKey"
    put("one/c", b"2", IfMatch=etag)
    put("one/new", b"1", IfNoneMatch="*")
    now = one.head_object(Bucket=BUCKET, Key="one/c")
    assert code(one.get_object, Bucket=BUCKET, Key="one/c", IfNoneMatch=now["ETag"]) == "304"
    assert code(one.get_object, Bucket=BUCKET, Key="one/c", IfMatch=etag) == "PreconditionFailed"
    assert code(one.get_object, Bucket=BUCKET, Key="one/c", IfModifiedSince=now["LastModified"]) == "304"
    assert get("one/c", IfUnmodifiedSince=now["LastModified"]) == b"2"


STRANGE = ["one/../two/x", "one/%2e%2e/two/x", "one//x", "one/./x", "one/a b+c&d=e?f#g", "one/\u00fcml\u00e4ut/\U0001f600",
           "one/" + "k" * 1020, "one/\\..\\x", "one/x\ty", "one/..", "one/trailing/", "one/%", "one/<&>'\"", "one/~", "one/x\u0001y"]


def keys_are_just_keys():
    for key in STRANGE:
        put(key, key.encode())
    for key in STRANGE:
        assert get(key) == key.encode(), key
    listed = [o["Key"] for o in one.list_objects_v2(Bucket=BUCKET, Prefix="one/")["Contents"]]
    assert set(STRANGE) <= set(listed), set(STRANGE) - set(listed)
    assert listed == sorted(listed, key=lambda k: k.encode())
    assert code(two.get_object, Bucket=BUCKET, Key="two/x") == "NoSuchKey"
    for key in ("/one/x", "../one/x", "one", "oneself/x", "two/../one/x", "%6fne/x", "/", "..", "two/x"):
        assert code(put, key, b"") == "AccessDenied", key
    assert code(put, "one/" + "k" * 1021, b"") in ("KeyTooLongError", "KeyTooLong")
    for key in ("/etc/x", "../../etc/x", "//", "/"):
        put(key, b"a", s3=admin)
        assert get(key, s3=admin) == b"a", key
        admin.delete_object(Bucket=BUCKET, Key=key)
    gone = one.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": k} for k in STRANGE if "\u0001" not in k]})
    assert not gone.get("Errors") and len(gone["Deleted"]) == len(STRANGE) - 1, gone
    one.delete_object(Bucket=BUCKET, Key="one/x\u0001y")


def listings():
    names = sorted("one/l/%s/%02d" % (d, n) for d in "abc" for n in range(11)) + ["one/l/z"]
    for name in names:
        put(name, b"x")
    for call, token, after in (("list_objects_v2", None, "StartAfter"), ("list_objects", None, "Marker")):
        for size in (1, 3, 10, 1000):
            for delimiter in ("", "/", "0"):
                pages = one.get_paginator(call).paginate(Bucket=BUCKET, Prefix="one/l/", Delimiter=delimiter, PaginationConfig={"PageSize": size})
                keys, prefixes = [], []
                for page in pages:
                    keys += [o["Key"] for o in page.get("Contents", [])]
                    prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
                cut = lambda n: n[: n.index(delimiter, 6) + 1] if delimiter and delimiter in n[6:] else None
                want_keys = [n for n in names if not cut(n)]
                want_prefixes = sorted({cut(n) for n in names if cut(n)})
                assert keys == want_keys and prefixes == want_prefixes, (call, size, delimiter, keys, prefixes)
        rest = getattr(one, call)(Bucket=BUCKET, Prefix="one/l/", **{after: names[20]})
        assert [o["Key"] for o in rest["Contents"]] == names[21:]
    page = one.list_objects_v2(Bucket=BUCKET, Prefix="one/l/", MaxKeys=0)
    assert page["KeyCount"] == 0 and not page["IsTruncated"]
    assert code(one.list_objects_v2, Bucket=BUCKET, Prefix="one/", ContinuationToken="nonsense") == "InvalidArgument"
    for prefix in ("", "on", "one", "two/", "/one/"):
        assert code(one.list_objects_v2, Bucket=BUCKET, Prefix=prefix) == "AccessDenied", prefix
        assert code(one.list_objects, Bucket=BUCKET, Prefix=prefix) == "AccessDenied", prefix
        assert code(one.list_multipart_uploads, Bucket=BUCKET, Prefix=prefix) == "AccessDenied", prefix
        assert code(one.list_object_versions, Bucket=BUCKET, Prefix=prefix) == "AccessDenied", prefix


def multipart():
    body = hashlib.sha512(b"m").digest() * (12 * MIB // 64) + b"end"
    for more in ({}, {"ChecksumAlgorithm": "SHA256"}):
        config = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=5 * MIB)
        one.upload_fileobj(io.BytesIO(body), BUCKET, "one/m", Config=config, ExtraArgs=dict(ContentType="a/b", **more))
        head = one.head_object(Bucket=BUCKET, Key="one/m", ChecksumMode="ENABLED")
        md5s = b"".join(hashlib.md5(body[i:i + 5 * MIB]).digest() for i in range(0, len(body), 5 * MIB))
        assert head["ETag"] == '"%s-3"' % hashlib.md5(md5s).hexdigest() and head["ContentType"] == "a/b", head
        out = io.BytesIO()
        one.download_fileobj(BUCKET, "one/m", out, Config=config)
        assert out.getvalue() == body
    copied = TransferConfig(multipart_threshold=5 * MIB, multipart_chunksize=6 * MIB)
    one.copy({"Bucket": BUCKET, "Key": "one/m"}, BUCKET, "one/m2", Config=copied)
    assert get("one/m2") == body
    one.delete_object(Bucket=BUCKET, Key="one/m")
    assert get("one/m2", Range="bytes=%d-" % (5 * MIB - 3)) == body[5 * MIB - 3:]

    begun = one.create_multipart_upload(Bucket=BUCKET, Key="one/p")["UploadId"]
    name = dict(Bucket=BUCKET, Key="one/p", UploadId=begun)
    tags = [one.upload_part(PartNumber=n, Body=bytes([n]) * (5 * MIB), **name)["ETag"] for n in (1, 2, 3)]
    part = lambda n, tag: {"PartNumber": n, "ETag": tag}
    finish = lambda parts: code(one.complete_multipart_upload, MultipartUpload={"Parts": parts}, **name)
    assert finish([part(2, tags[1]), part(1, tags[0])]) == "InvalidPartOrder"
    assert finish([part(1, tags[1])]) == "InvalidPart"
    assert finish([part(9, tags[0])]) == "InvalidPart"
    assert finish([]) == "MalformedXML"
    assert code(one.upload_part, PartNumber=0, Body=b"", **name) == "InvalidArgument"
    assert code(one.upload_part, PartNumber=10001, Body=b"", **name) == "InvalidArgument"
    listed = one.list_parts(MaxParts=2, **name)
    assert [p["PartNumber"] for p in listed["Parts"]] == [1, 2] and listed["IsTruncated"]
    assert [p["PartNumber"] for p in one.list_parts(PartNumberMarker=2, **name)["Parts"]] == [3]
    uploads = one.list_multipart_uploads(Bucket=BUCKET, Prefix="one/")["Uploads"]
    assert [u["Key"] for u in uploads] == ["one/p"]
    assert code(two.upload_part, PartNumber=1, Body=b"", **name) == "AccessDenied"
    assert code(two.abort_multipart_upload, **name) == "AccessDenied"
    assert code(two.upload_part, PartNumber=1, Body=b"", Bucket=BUCKET, Key="two/p", UploadId=begun) == "NoSuchUpload"
    parts = {"Parts": [part(1, tags[0]), part(3, tags[2])]}
    done = one.complete_multipart_upload(MultipartUpload=parts, **name)
    again = one.complete_multipart_upload(MultipartUpload=parts, **name)
    assert done["ETag"] == again["ETag"]
    assert get("one/p") == b"\1" * (5 * MIB) + b"\3" * (5 * MIB)
    assert code(one.abort_multipart_upload, **name) == "NoSuchUpload"
    small = one.create_multipart_upload(Bucket=BUCKET, Key="one/s")["UploadId"]
    name = dict(Bucket=BUCKET, Key="one/s", UploadId=small)
    tags = [one.upload_part(PartNumber=n, Body=b"small", **name)["ETag"] for n in (1, 2)]
    assert finish([part(1, tags[0]), part(2, tags[1])]) == "EntityTooSmall"
    one.abort_multipart_upload(**name)
    assert "Uploads" not in one.list_multipart_uploads(Bucket=BUCKET, Prefix="one/")


def copies():
    put("one/src", b"source" * 5000, Metadata={"k": "v"}, ContentType="t/t")
    put("two/src", b"foreign", s3=two)
    name = lambda key: {"Bucket": BUCKET, "Key": key}
    one.copy_object(Bucket=BUCKET, Key="one/dst", CopySource=name("one/src"))
    head = one.head_object(Bucket=BUCKET, Key="one/dst")
    assert head["Metadata"] == {"k": "v"} and head["ContentType"] == "t/t"
    one.copy_object(Bucket=BUCKET, Key="one/dst", CopySource=name("one/dst"), MetadataDirective="REPLACE", Metadata={"n": "m"})
    assert one.head_object(Bucket=BUCKET, Key="one/dst")["Metadata"] == {"n": "m"} and get("one/dst") == b"source" * 5000
    one.delete_object(Bucket=BUCKET, Key="one/src")
    assert get("one/dst") == b"source" * 5000
    same = dict(Bucket=BUCKET, Key="one/dst", CopySource=name("one/dst"))
    assert code(one.copy_object, **same) == "InvalidRequest"
    steal = dict(Bucket=BUCKET, Key="one/stolen")
    for source in ("two/src", "/two/src"):
        assert code(one.copy_object, CopySource=name(source), **steal) == "AccessDenied"
    assert code(one.copy_object, CopySource=name("one/../two/src"), **steal) == "NoSuchKey"
    assert code(one.copy_object, CopySource=name("one/none"), **steal) == "NoSuchKey"
    upload = one.create_multipart_upload(**steal)["UploadId"]
    assert code(one.upload_part_copy, UploadId=upload, PartNumber=1, CopySource=name("two/src"), **steal) == "AccessDenied"
    done = one.upload_part_copy(UploadId=upload, PartNumber=1, CopySource=name("one/dst"), CopySourceRange="bytes=6-11", **steal)
    tag = done["CopyPartResult"]["ETag"]
    assert tag == '"%s"' % hashlib.md5(b"source").hexdigest()
    one.complete_multipart_upload(UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": tag}]}, **steal)
    assert get("one/stolen") == b"source"
    assert code(one.copy_object, CopySource=name("one/dst"), CopySourceIfMatch='"0"', **steal) == "PreconditionFailed"
    assert one.get_object_tagging(Bucket=BUCKET, Key="one/dst")["TagSet"] == []
    assert code(put, "one/t", b"", Tagging="a=b") == "NotImplemented"


def many_deletes():
    for n in range(20):
        put("one/d/%d" % n, b"")
    foreign = {"Objects": [{"Key": "one/d/1"}, {"Key": "two/src"}]}
    assert code(one.delete_objects, Bucket=BUCKET, Delete=foreign) == "AccessDenied"
    put("one/d/1", b"", IfMatch="*")
    gone = one.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "one/d/%d" % n} for n in range(25)], "Quiet": True})
    assert "Deleted" not in gone and "Errors" not in gone
    assert "Contents" not in one.list_objects_v2(Bucket=BUCKET, Prefix="one/d/")


def fetch(url, method="GET", body=None, headers={}):
    request = urllib.request.Request(url, data=body, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def presigned():
    sign = lambda call, s3=one, **more: s3.generate_presigned_url(call, Params=dict(Bucket=BUCKET, **more), ExpiresIn=60)
    body = b"by url" * 9000
    assert fetch(sign("put_object", Key="one/u"), "PUT", body)[0] == 200
    assert fetch(sign("get_object", Key="one/u")) == (200, body)
    assert fetch(sign("get_object", Key="one/u").replace("one/u", "one/v"))[0] == 403
    assert fetch(sign("get_object", Key="two/src"))[0] == 403
    assert fetch(sign("list_objects_v2", Prefix=""))[0] == 403
    put("one/hidden", b"hidden")
    url = sign("put_object", Key="one/u2")
    status, text = fetch(url, "PUT", b"", {"x-amz-copy-source": BUCKET + "/one/hidden"})
    assert status == 403, (status, text)
    status, text = fetch(endpoint + "/" + BUCKET + "/one/u")
    assert status == 403, (status, text)
    import time
    expired = one.generate_presigned_url("get_object", Params=dict(Bucket=BUCKET, Key="one/u"), ExpiresIn=1)
    time.sleep(2.1)
    assert fetch(expired)[0] == 403
    form = one.generate_presigned_post(BUCKET, "one/form")
    edge = "xx"
    parts = "".join('--%s\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (edge, n, v) for n, v in form["fields"].items())
    parts += '--%s\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nbytes\r\n--%s--\r\n' % (edge, edge)
    status, text = fetch(form["url"], "POST", parts.encode(), {"Content-Type": "multipart/form-data; boundary=" + edge})
    assert status in (400, 403), (status, text)
    assert code(one.head_object, Bucket=BUCKET, Key="one/form") == "404"


def wrong_keys():
    keys.extend(["ns-one", "0" * 64, "ns-../two", "x", "nobody", "x"])
    assert code(client(3).list_buckets) == "SignatureDoesNotMatch"
    assert code(client(4).list_buckets) in ("InvalidAccessKeyId", "InvalidRequest")
    assert code(client(5).list_buckets) == "InvalidAccessKeyId"


failed = []
steps = [buckets, objects, checksums, conditions, keys_are_just_keys, listings, multipart, copies, many_deletes, presigned, wrong_keys]
for step in steps:
    try:
        step()
        print("ok    ", step.__name__, flush=True)
    except Exception:
        failed.append(step.__name__)
        print("FAILED", step.__name__, flush=True)
        traceback.print_exc()
sys.exit("failed: " + ", ".join(failed) if failed else 0)
