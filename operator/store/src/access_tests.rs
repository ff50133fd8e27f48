use super::*;

/// Every operation that the library knows, with what a namespace's key may do: K a key, B a bucket, S the store,
/// L a listing, A what only the administrator may. Everything else is refused to everybody.
const OPEN: [(&str, char); 20] = [
    ("ListBuckets", 'S'),
    ("HeadBucket", 'B'),
    ("GetBucketLocation", 'B'),
    ("CreateBucket", 'A'),
    ("GetObject", 'K'),
    ("HeadObject", 'K'),
    ("GetObjectTagging", 'K'),
    ("PutObject", 'K'),
    ("CopyObject", 'K'),
    ("DeleteObject", 'K'),
    ("DeleteObjects", 'K'),
    ("CreateMultipartUpload", 'K'),
    ("UploadPart", 'K'),
    ("UploadPartCopy", 'K'),
    ("CompleteMultipartUpload", 'K'),
    ("AbortMultipartUpload", 'K'),
    ("ListParts", 'K'),
    ("ListObjects", 'L'),
    ("ListObjectsV2", 'L'),
    ("ListMultipartUploads", 'L'),
];

const CLOSED: &str = "CreateBucketMetadataTableConfiguration CreateSession DeleteBucket \
    DeleteBucketAnalyticsConfiguration DeleteBucketCors DeleteBucketEncryption \
    DeleteBucketIntelligentTieringConfiguration DeleteBucketInventoryConfiguration DeleteBucketLifecycle \
    DeleteBucketMetadataTableConfiguration DeleteBucketMetricsConfiguration DeleteBucketOwnershipControls \
    DeleteBucketPolicy DeleteBucketReplication DeleteBucketTagging DeleteBucketWebsite DeleteObjectTagging \
    DeletePublicAccessBlock GetBucketAccelerateConfiguration GetBucketAcl GetBucketAnalyticsConfiguration \
    GetBucketCors GetBucketEncryption GetBucketIntelligentTieringConfiguration GetBucketInventoryConfiguration \
    GetBucketLifecycleConfiguration GetBucketLogging GetBucketMetadataTableConfiguration \
    GetBucketMetricsConfiguration GetBucketNotificationConfiguration GetBucketOwnershipControls GetBucketPolicy \
    GetBucketPolicyStatus GetBucketReplication GetBucketRequestPayment GetBucketTagging GetBucketVersioning \
    GetBucketWebsite GetObjectAcl GetObjectAttributes GetObjectLegalHold GetObjectLockConfiguration \
    GetObjectRetention GetObjectTorrent GetPublicAccessBlock ListBucketAnalyticsConfigurations \
    ListBucketIntelligentTieringConfigurations ListBucketInventoryConfigurations ListBucketMetricsConfigurations \
    ListDirectoryBuckets ListObjectVersions PutBucketAccelerateConfiguration PutBucketAcl \
    PutBucketAnalyticsConfiguration PutBucketCors PutBucketEncryption PutBucketIntelligentTieringConfiguration \
    PutBucketInventoryConfiguration PutBucketLifecycleConfiguration PutBucketLogging \
    PutBucketMetricsConfiguration PutBucketNotificationConfiguration PutBucketOwnershipControls PutBucketPolicy \
    PutBucketReplication PutBucketRequestPayment PutBucketTagging PutBucketVersioning PutBucketWebsite \
    PutObjectAcl PutObjectLegalHold PutObjectLockConfiguration PutObjectRetention PutObjectTagging \
    PutPublicAccessBlock RestoreObject SelectObjectContent WriteGetObjectResponse PostObject SomethingOfTomorrow";

const TARGETS: [Target<'static>; 12] = [
    Target::Store,
    Target::Bucket,
    Target::Key("team-a/x"),
    Target::Key("team-a/"),
    Target::Key("team-a"),
    Target::Key("team-ab/x"),
    Target::Key("/team-a/x"),
    Target::Key("../team-a/x"),
    Target::Prefix(""),
    Target::Prefix("team"),
    Target::Prefix("team-a"),
    Target::Prefix("team-a/sub"),
];

fn expected(identity: &Identity, kind: char, target: Target<'_>) -> bool {
    let admin = *identity == Identity::Admin;
    match (kind, target) {
        ('S', Target::Store) | ('B', Target::Bucket) => true,
        ('A', Target::Bucket) => admin,
        ('K', Target::Key(text)) | ('L', Target::Prefix(text)) => admin || text.starts_with("team-a/"),
        _ => false,
    }
}

#[test]
fn every_operation_with_every_target() {
    // Together they are what the library has: 99 operations and one of tomorrow.
    assert_eq!(OPEN.len() + CLOSED.split_whitespace().count(), 100 + 1 - 1);
    for identity in [Identity::Admin, Identity::Namespace("team-a".to_owned())] {
        for target in TARGETS {
            for (operation, kind) in OPEN {
                let got = allowed(&identity, operation, target);
                assert_eq!(
                    got.is_ok(),
                    expected(&identity, kind, target),
                    "{identity:?} {operation} {target:?} {got:?}"
                );
            }
            for operation in CLOSED.split_whitespace() {
                let refused = Err(Refusal::Operation(operation.to_owned()));
                assert_eq!(allowed(&identity, operation, target), refused, "{identity:?} {target:?}");
            }
        }
    }
}

#[test]
fn a_refusal_names_what_is_allowed() {
    let identity = Identity::Namespace("team-a".to_owned());
    let list = allowed(&identity, "ListObjectsV2", Target::Prefix("team")).unwrap_err().to_string();
    assert_eq!(list, "ListObjectsV2 is allowed with a prefix that starts with \"team-a/\" only");
    let put = allowed(&identity, "PutObject", Target::Key("team-b/x")).unwrap_err().to_string();
    assert_eq!(put, "PutObject is allowed for keys under \"team-a/\" only");
}

#[test]
fn an_unsigned_copy_source_is_refused() {
    let mut headers = HeaderMap::new();
    let plain: Uri = "/cultivar/a?X-Amz-SignedHeaders=host".parse().unwrap();
    assert!(copy_source_is_signed(&headers, &plain).is_ok());
    headers.insert("x-amz-copy-source", "cultivar/b".parse().unwrap());
    assert!(copy_source_is_signed(&headers, &plain).is_err());
    let signed: Uri = "/cultivar/a?X-Amz-SignedHeaders=host%3Bx-amz-copy-source".parse().unwrap();
    assert!(copy_source_is_signed(&headers, &signed).is_ok());
    let bare: Uri = "/cultivar/a".parse().unwrap();
    assert!(copy_source_is_signed(&headers, &bare).is_err());
    let auth = "AWS4-HMAC-SHA256 Credential=a/b/c/s3/aws4_request, SignedHeaders=host;x-amz-copy-source, Signature=0";
    headers.insert("authorization", auth.parse().unwrap());
    assert!(copy_source_is_signed(&headers, &bare).is_ok());
    headers.insert("x-amz-copy-source-range", "bytes=0-1".parse().unwrap());
    assert!(copy_source_is_signed(&headers, &bare).is_err());
}
