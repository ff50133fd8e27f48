//! What tells one installation of requirements from another: the files, and the Python that they are installed for.

use super::{Keyless, command, python_said};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that one may lead to.
const MOST: usize = 50;
/// Of it depends which wheels fit, and what the first line of an installed command is.
const ASK: &str = "import json, platform, sys, sysconfig
print(json.dumps([sys.implementation.name, sys.version, sys.executable, sysconfig.get_config_var('SOABI'), \
sysconfig.get_platform(), platform.libc_ver()]))";

/// The key, as 64 hex digits; or why there is none.
pub async fn key(file: &Path, top: &Path, python: &OsStr, scratch: &Path) -> Result<String, Keyless> {
    let mut texts = BTreeMap::new();
    read(file, top, &mut texts)?;
    let python_is = python_said(command(python, scratch).args(["-c", ASK])).await?;
    // Where from: of the environment and of files in the image.
    let settings = python_said(command(python, scratch).args(["-m", "pip", "config", "list"])).await?;
    let all = json!({
        "version": 1,
        "files": texts.iter().map(|(path, text)| json!([path, text])).collect::<Vec<Value>>(),
        "variables": texts.values().flat_map(|text| variables(text)).collect::<BTreeMap<_, _>>(),
        "python": python_is,
        "settings": without_users(&settings),
    });
    Ok(cultivar_data::digest_of(all.to_string().as_bytes()).trim_start_matches("sha256:").to_owned())
}

// The file and those that it names, by their paths from the top.
fn read(file: &Path, top: &Path, texts: &mut BTreeMap<PathBuf, String>) -> Result<(), String> {
    let mut left = vec![file.to_owned()];
    while let Some(file) = left.pop() {
        let shown = file.strip_prefix(top).unwrap_or(&file).to_owned();
        if texts.contains_key(&shown) {
            continue;
        }
        if texts.len() == MOST {
            return Err(format!("it leads to more than {MOST} files"));
        }
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", shown.display()))?;
        let folder = file.parent().unwrap_or(top);
        for line in lines(&text) {
            match meant(&line) {
                Meant::File(name) if name.contains("://") => return Err(format!("{name} may change")),
                Meant::File(name) => left.push(folder.join(name)),
                Meant::Code => return Err(format!("{line:?} is code that lies beside it")),
                Meant::Other => {}
            }
        }
        texts.insert(shown, text);
    }
    Ok(())
}

// Without comments, and whole where a backslash breaks them.
fn lines(text: &str) -> Vec<String> {
    let whole = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let bare = whole.lines().map(|line| {
        let line = line.trim();
        // A comment begins the line or follows a space: an address may hold a #.
        let end = if line.starts_with('#') { Some(0) } else { line.find(" #").or(line.find("\t#")) };
        line[..end.unwrap_or(line.len())].trim().to_owned()
    });
    bare.filter(|line| !line.is_empty()).collect()
}

#[derive(Debug, PartialEq)]
enum Meant {
    /// Another file of the same kind.
    File(String),
    /// What is built of files that no key is made of.
    Code,
    Other,
}

fn meant(line: &str) -> Meant {
    let option = |names: [&str; 2]| {
        names.into_iter().find_map(|name| {
            let rest = line.strip_prefix(name)?;
            let long = name.starts_with("--");
            (!long || rest.starts_with([' ', '\t', '='])).then(|| rest.trim_start_matches(['=', ' ', '\t']).to_owned())
        })
    };
    if let Some(name) = option(["--requirement", "-r"]).or_else(|| option(["--constraint", "-c"])) {
        return Meant::File(name.trim_matches(['"', '\'']).to_owned());
    }
    let is_local = |word: &str| word.starts_with(['.', '/']) || word.starts_with("file:") || word.ends_with(".whl");
    let is_folder = |word: &str| word.contains('/') && !word.contains("://");
    if option(["--editable", "-e"]).is_some() || option(["--find-links", "-f"]).is_some_and(|at| !at.contains("://")) {
        return Meant::Code;
    }
    // `name @ file:///…` too; options such as --hash may follow.
    let words: Vec<&str> = line.split_whitespace().take_while(|word| !word.starts_with("--")).collect();
    let first = words.first().copied().unwrap_or_default();
    let at = line.split_once('@').map(|(_, at)| at.trim()).filter(|at| at.starts_with("file:"));
    if at.is_some() || (!first.contains("://") && (is_local(first) || is_folder(first))) || first.starts_with("file:") {
        return Meant::Code;
    }
    Meant::Other
}

// `${NAME}` stands for a variable in such a file.
fn variables(text: &str) -> Vec<(String, Option<String>)> {
    let names = text.split("${").skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name.to_owned());
    names.map(|name| (name.clone(), std::env::var(&name).ok())).collect()
}

// A token that is made anew each hour must not make another key.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c == '/' || c == '\'' || c == '"' || c.is_whitespace()).unwrap_or(part.len());
        let host = part[..end].rfind('@').map_or(0, |at| at + 1);
        out = format!("{out}://{}", &part[host..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_requirements_file() {
        let text = "# all\nnumpy==2.1 # fast\n a @ https://h/a.zip#egg=a\nb==1 \\\n  --hash=sha256:00\n\n";
        assert_eq!(lines(text), ["numpy==2.1", "a @ https://h/a.zip#egg=a", "b==1    --hash=sha256:00"]);
        let file = |name: &str| Meant::File(name.to_owned());
        for (line, expected) in [
            ("numpy>=2", Meant::Other),
            ("requests[security]==2.8.1 ; python_version < '2.7'", Meant::Other),
            ("a @ https://h/a/b.zip", Meant::Other),
            ("git+https://github.com/a/b@c0ffee", Meant::Other),
            ("https://h/a.whl", Meant::Other),
            ("--index-url https://h/simple", Meant::Other),
            ("--find-links https://h/links", Meant::Other),
            ("--require-hashes", Meant::Other),
            ("-r base.txt", file("base.txt")),
            ("-rbase.txt", file("base.txt")),
            ("--requirement=../base.txt", file("../base.txt")),
            ("-c https://h/c.txt", file("https://h/c.txt")),
            ("--constraint limits.txt", file("limits.txt")),
            ("-e .", Meant::Code),
            ("--editable=git+https://h/a", Meant::Code),
            ("./local", Meant::Code),
            ("libs/mine", Meant::Code),
            ("wheels.whl", Meant::Code),
            ("mine @ file:///src/mine", Meant::Code),
            ("file:///src/mine", Meant::Code),
            ("--find-links wheels", Meant::Code),
        ] {
            assert_eq!(meant(line), expected, "{line}");
        }
    }

    #[test]
    fn a_key_has_all_files_and_no_tokens() {
        let top = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(top.path().join(name), text).unwrap();
        write("a.txt", "-r b.txt\nnumpy\n");
        write("b.txt", "-c a.txt\n");
        let mut texts = BTreeMap::new();
        read(&top.path().join("a.txt"), top.path(), &mut texts).unwrap();
        assert_eq!(texts.keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["a.txt", "b.txt"]);
        write("b.txt", "-e .");
        assert!(read(&top.path().join("a.txt"), top.path(), &mut BTreeMap::new()).unwrap_err().contains("-e ."));
        let said = "global.index-url='https://me:t0ken@h/simple'\n:env:.extra-index-url='https://x@i/ https://j/a@b'";
        let bare = "global.index-url='https://h/simple'\n:env:.extra-index-url='https://i/ https://j/a@b'";
        assert_eq!(without_users(said), bare);
    }
}
