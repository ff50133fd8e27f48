//! The real program, spoken to by the command line of AWS, as people look into a store with it. It needs a Python that
//! has awscli, named by CULTIVAR_TEST_PYTHON; without one nothing is tested here, and that is said.

mod support;

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Output};

use cultivar_store::credentials::Credentials;
use support::{Server, contents, namespace, python_with};

/// The command line with one pair of keys, and nothing of the user's own configuration.
struct Aws<'a> {
    python: OsString,
    server: &'a Server,
    keys: Credentials,
}

impl Aws<'_> {
    fn try_to(&self, words: &[&str]) -> Output {
        let mut command = Command::new(&self.python);
        let ours = |name: &str| name.starts_with("AWS_");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(ours)) {
            command.env_remove(name);
        }
        command
            .args(["-m", "awscli", "--endpoint-url", &format!("http://{}", self.server.s3), "s3"])
            .args(words)
            .env("AWS_ACCESS_KEY_ID", &self.keys.access_key_id)
            .env("AWS_SECRET_ACCESS_KEY", &self.keys.secret_access_key)
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
            .output()
            .unwrap_or_else(|error| panic!("{:?} does not start: {error}", self.python))
    }

    /// What it prints when it does as told.
    fn says(&self, words: &[&str]) -> String {
        let done = self.try_to(words);
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "aws s3 {words:?}: {out}\n{err}");
        out.into_owned()
    }
}

#[test]
fn folders_go_there_and_come_back() {
    let Some(python) = python_with("awscli") else { return };
    let root = tempfile::tempdir().unwrap();
    let server = Server::start(&root.path().join("server"), &[]);
    let aws = Aws { python, server: &server, keys: namespace("one") };
    let (from, to) = (root.path().join("from"), root.path().join("to"));
    fs::create_dir_all(from.join("sub folder")).unwrap();
    for number in 0..30 {
        fs::write(from.join(format!("sub folder/{number} ü + &.txt")), number.to_string()).unwrap();
    }
    fs::write(from.join("empty"), "").unwrap();
    let large: Vec<u8> = (0..20_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    fs::write(from.join("large"), &large).unwrap();
    let (here, there) = (from.to_str().unwrap(), "s3://cultivar/one/dir");

    aws.says(&["sync", here, there]);
    assert_eq!(aws.says(&["sync", here, there]), "", "a second sync has nothing to do");
    let listed = aws.says(&["ls", "--recursive", "--summarize", there]);
    assert!(listed.contains("Total Objects: 32") && listed.contains("one/dir/sub folder/7 ü + &.txt"), "{listed}");
    let listed = aws.says(&["ls", &format!("{there}/")]);
    assert!(listed.contains("PRE sub folder/") && listed.contains("20000000 large"), "{listed}");
    aws.says(&["sync", there, to.to_str().unwrap()]);
    assert!(contents(&from) == contents(&to), "other files came back");
    let one = root.path().join("one");
    aws.says(&["cp", &format!("{there}/large"), &format!("{there}-copy")]);
    aws.says(&["cp", &format!("{there}-copy"), one.to_str().unwrap()]);
    assert!(fs::read(&one).unwrap() == large, "other bytes came back");
    aws.says(&["rm", "--recursive", "--quiet", there]);
    assert!(!aws.try_to(&["ls", "--recursive", &format!("{there}/")]).status.success(), "ls of nothing is a failure");

    let stranger = Aws { python: aws.python.clone(), server: &server, keys: namespace("two") };
    let refused = stranger.try_to(&["cp", here, &format!("{there}/x"), "--recursive"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && told.contains("AccessDenied"), "{told}");
}
