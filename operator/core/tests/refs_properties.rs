//! References against whatever people and programs write: nothing panics, and data arrives byte for byte.

use cultivar_core::refs::{
    Expression, FieldPath, Head, Insert, Names, Part, PathRef, Scope, Segment, Template, check, escape, eval_bool,
    resolve, scan,
};
use cultivar_core::refs::{Known, resolve_text};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the kubelet does to command, args and env: `Expand` of
/// `k8s.io/kubernetes/third_party/forked/golang/expansion`.
fn kubelet(input: &str) -> String {
    let (bytes, mut out, mut cursor) = (input.as_bytes(), Vec::new(), 0);
    while cursor < bytes.len() {
        if bytes[cursor] != b'$' || cursor + 1 == bytes.len() {
            out.push(bytes[cursor]);
            cursor += 1;
            continue;
        }
        let rest = &bytes[cursor + 1..];
        let close = rest.iter().position(|b| *b == b')');
        match (rest[0], close) {
            (b'$', _) => {
                out.push(b'$');
                cursor += 2;
            }
            (b'(', Some(close)) => {
                let name = &rest[1..close];
                match name {
                    b"HOME" => out.extend(b"/root"),
                    b"X" => out.extend(b"$(HOME)"),
                    _ => out.extend([b"$(", name, b")"].concat()),
                }
                cursor += close + 2;
            }
            // A Go string of one byte: bytes beyond ASCII turn into the rune of that number.
            (byte, _) => {
                out.push(b'$');
                out.extend(char::from(byte).to_string().bytes());
                cursor += 2;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A piece of a template and what the user sees in it.
#[derive(Debug, Clone)]
enum Piece {
    /// The user's text, with no reference in it.
    User(String),
    /// `${stages.a[i]}`.
    Outer(usize),
    /// `${params.p[i]}`.
    Own(usize),
}

/// Text full of what could go wrong.
fn hostile() -> impl Strategy<Value = String> {
    let bits = prop::sample::select(vec![
        "$",
        "$$",
        "{",
        "}",
        "${",
        "$${",
        "(",
        ")",
        "$(",
        "$(HOME)",
        "$(X)",
        "HOME",
        "{HOME}",
        "${HOME}",
        "${params.p[0]}",
        "params.p[0]}",
        "{params.p[0]}",
        "pa",
        "=",
        "=1}",
        "${= 1}",
        "${=\"\"}",
        "${=\"$\"}",
        "${stages.a[0]}",
        "stages.a[0]}",
        "\"",
        "'",
        "\\",
        ".",
        "[",
        "é",
        " ",
        "\n",
        "a",
    ]);
    prop::collection::vec(bits, 0..8).prop_map(|bits| bits.concat())
}

/// The user's text: what of it would be a reference is dropped.
fn user() -> impl Strategy<Value = String> {
    hostile().prop_filter("text that holds a reference", |text| {
        Template::parse(text).is_ok_and(|template| template.parts.iter().all(|part| part.scope().is_none()))
    })
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let piece = prop_oneof![
        user().prop_map(Piece::User),
        (0..3_usize).prop_map(Piece::Outer),
        (0..3_usize).prop_map(Piece::Own)
    ];
    prop::collection::vec(piece, 0..6)
}

fn source(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::User(text) => text.clone(),
            Piece::Outer(i) => format!("${{stages.a[{i}]}}"),
            Piece::Own(i) => format!("${{params.p[{i}]}}"),
        })
        .collect()
}

/// The template with its references as it parses: neighbours in `pieces` may have run together into other text.
fn render(text: &str, data: &[String], own: &[String], expand: impl Fn(&str) -> String) -> Option<String> {
    let template = Template::parse(text).ok()?;
    let (mut out, mut user) = (String::new(), String::new());
    for part in &template.parts {
        let inserted = match part {
            Part::Text(text) => {
                user.push_str(text);
                continue;
            }
            Part::Escape => {
                user.push_str("${");
                continue;
            }
            Part::Path { path, .. } => match (path.head, path.segments.last()) {
                (Head::Stages, Some(Segment::Index(i))) => data.get(*i)?,
                (Head::Params, Some(Segment::Index(i))) => own.get(*i)?,
                _ => return None,
            },
            Part::Choice { .. } | Part::Cel { .. } => return None,
        };
        out.push_str(&expand(&user));
        user.clear();
        out.push_str(inserted);
    }
    Some(out + &expand(&user))
}

fn strings() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop_oneof![hostile(), any::<String>()], 3)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn data_arrives_byte_for_byte(pieces in pieces(), data in strings(), own in strings()) {
        let text = source(&pieces);
        let Some(plain) = render(&text, &data, &own, str::to_owned) else { return Ok(()) };
        let expanded = render(&text, &data, &own, kubelet).unwrap();
        let (stages, params) = (json!({"a": data}), json!({"p": own}));
        let outer = Names::new().with(Head::Stages, &stages);
        let own = Names::new().with(Head::Params, &params);
        // "x" before it keeps a whole reference text, as the neighbours of the pieces do.
        let template = resolve_text(&text, Scope::Outer, &outer, Insert::Escaped).unwrap();
        let rendered = resolve(&template, &FieldPath::root(), Scope::Own, &own, Insert::Plain);
        prop_assert_eq!(rendered, Ok(Value::String(plain)), "template {}", template);
        let rendered = resolve(&template, &FieldPath::root(), Scope::Own, &own, Insert::Doubled).unwrap();
        prop_assert_eq!(kubelet(rendered.as_str().unwrap()), expanded, "template {}, rendered {}", template, rendered);
    }

    #[test]
    fn escaped_data_is_itself(data in prop_oneof![hostile(), any::<String>()]) {
        let back = resolve_text(&escape(&data), Scope::Own, &Names::new(), Insert::Plain);
        prop_assert_eq!(back, Ok(Value::String(data)));
    }

    #[test]
    fn what_is_displayed_parses_back(
        head in prop::sample::select(Head::ALL.to_vec()),
        segments in prop::collection::vec(prop_oneof![any::<String>().prop_map(Segment::Key), (0..9_usize).prop_map(Segment::Index)], 1..5),
    ) {
        let path = PathRef { head, segments };
        let text = format!("${{{path}}}");
        let template = Template::parse(&text).unwrap();
        prop_assert_eq!(template.parts, vec![Part::Path { path, source: text }]);
    }

    #[test]
    fn the_parts_are_the_text(text in prop_oneof![hostile(), any::<String>()]) {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(template.parts.iter().map(Part::source).collect::<String>(), text);
        }
    }

    #[test]
    fn nothing_panics(text in prop_oneof![hostile(), any::<String>(), "\\PC{0,20}\\$\\{(params|stages|=)\\PC{0,30}\\}?"]) {
        let value = json!([text.clone()]);
        let params = json!({"p": [1, "x"]});
        let names = Names::new().with(Head::Params, &params);
        let _ = scan(&value, &FieldPath::root());
        let _ = check(&value, &FieldPath::root(), &Known::nothing());
        for insert in [Insert::Escaped, Insert::Plain, Insert::Doubled] {
            let _ = resolve(&value, &FieldPath::root(), Scope::Own, &names, insert);
            let _ = resolve(&value, &FieldPath::root(), Scope::Outer, &names, insert);
        }
    }
}

/// Expressions put together from CEL's own words: most are nonsense, many parse, some run.
fn expressions() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "params",
        ".p",
        "[0]",
        "[-1]",
        "1",
        "2.5",
        "-",
        "!",
        "+",
        "*",
        "/",
        "%",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        "==",
        "<",
        "in",
        "&&",
        "||",
        "'a'",
        "\"b\"",
        "r'\\'",
        "b'x'",
        "null",
        "true",
        "5u",
        "0x",
        "9223372036854775807",
        "1e308",
        ".map(x, x)",
        ".all(x,",
        ".matches('(')",
        "has(",
        "size(",
        "x",
        "`a`",
        ".`a/b`",
        "@",
        "$",
        "é",
        "\\",
        "'",
        "\"\"\"",
        "// c\n",
        ".",
        "Foo{",
        "a:",
        "?.",
        "[?0]",
        "max()",
        "string(",
        "int(",
    ]);
    prop::collection::vec(words, 0..14).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn no_expression_panics(source in expressions()) {
        let params = json!({"p": [1, 2.5, "x", null, {"a": 1}]});
        let _ = eval_bool(&source, &Names::new().with(Head::Params, &params));
    }
}

/// The worst that fits the limits, on a stack like that of a worker thread: none may overflow it or take long.
#[test]
fn deep_expressions_are_bounded() {
    let nested = |open: &str, close: &str, n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
    let mut sources = Vec::new();
    for n in [8, 16, 17, 100, 300, 500] {
        sources.extend([
            nested("(", ")", n),
            nested("[", "]", n),
            nested("{'a':", "}", n),
            nested("-(", ")", n),
            nested("!", "", n),
        ]);
        sources.extend([
            nested("-", "", n),
            nested("1+", "", n),
            nested("true&&", "", n),
            nested("1?1:", "", n),
            nested("1<", "", n),
        ]);
        sources.extend([
            nested("[1].map(x,", ")", n),
            format!("params{}", ".a".repeat(n)),
            format!("params{}", "[0]".repeat(n)),
        ]);
        sources.extend([
            nested("1?(", "):1", n),
            nested("size(", ")", n),
            nested("1*1+", "", n),
            nested("1 in ", "", n),
            nested("1?1?1:1:", "", n),
        ]);
    }
    for source in sources {
        let params = json!({});
        let started = std::time::Instant::now();
        let short = source[..source.len().min(40)].to_owned();
        let worker = std::thread::Builder::new().stack_size(1 << 20);
        let run = worker.spawn(move || {
            drop(Expression::parse(&source).and_then(|e| e.eval(&Names::new().with(Head::Params, &params))))
        });
        run.unwrap().join().unwrap();
        assert!(started.elapsed() < std::time::Duration::from_secs(2), "{short} took {:?}", started.elapsed());
    }
}

/// Loops in loops stop when the work is too much.
#[test]
fn endless_work_ends() {
    let ten = "[1,2,3,4,5,6,7,8,9,0]";
    let loops = |n: usize| (0..n).fold("1".to_owned(), |inner, _| format!("{ten}.map(x, {inner})"));
    let doubling = (0..12).fold("'0123456789012345678901234567890123456789'".to_owned(), |inner, _| {
        format!("[{inner}].map(x, x + x)[0]")
    });
    let names = Names::new();
    for source in [loops(7), doubling.clone()] {
        if let Ok(expression) = Expression::parse(&source) {
            let result = expression.eval(&names);
            assert!(
                result.is_ok_and(|v| v.to_string().len() < 1 << 20)
                    || expression.eval(&names).unwrap_err().to_string().contains("too much work")
            );
        }
    }
}
