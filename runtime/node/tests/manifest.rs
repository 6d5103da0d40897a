//! The manifest: what it means, what its errors look like, and that schema, reference and code say the same.

#![expect(clippy::expect_used, reason = "the helpers of tests fail by panicking, as the tests do")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bellwether_core::config::{FailurePolicy, Watch};
use bellwether_guest::grants::{FileMode, FolderGrant, Grants, Origin, StateGrant};
use bellwether_guest::limits::Limits;
use bellwether_node::admin::AdminAddress;
use bellwether_node::manifest::{Build, Connect, Dev, HostPort, Manifest, schema};
use bellwether_source::Reference;
use serde_json::Value;

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn gallery() -> PathBuf {
    package().join("tests/manifests")
}

fn blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

const MINIMAL: &str = r#"
[node]
id = "node-1"

[coordination]
connect = "memory:"

[[group]]
name = "echo"
component = "files/echo.component"
"#;

/// Parses a text as if it stood in the gallery.
fn parse(text: &str) -> Manifest {
    Manifest::parse(text, gallery().join("bellwether.toml")).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(text: &str) -> String {
    Manifest::parse(text, gallery().join("bellwether.toml")).expect_err("a bad manifest").to_string()
}

#[test]
fn every_bad_manifest_gives_its_message() {
    let folder = gallery();
    let mut cases: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the gallery")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    cases.sort();
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in cases {
        let error = match Manifest::load(&case) {
            Ok(_) => {
                wrong.push(format!("{} is accepted", case.display()));
                continue;
            }
            Err(error) => error,
        };
        let message = format!("{error}\n").replace(&folder.display().to_string(), "$DIR");
        assert!(!message.contains("hunter2"), "a secret is shown:\n{message}");
        assert!(!error.problems().is_empty() && error.to_ansi().contains('\u{1b}'), "{message}");
        assert!(!format!("{error:?}").contains("hunter2"), "a secret is shown by Debug: {error:?}");
        let expected = case.with_extension("err");
        if blessing() {
            fs::write(&expected, message).expect("the message can be written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != message {
            wrong.push(format!("{} gives another message (BLESS=1 takes it over):\n{message}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_message_has_its_manifest() {
    for entry in fs::read_dir(gallery()).expect("the gallery") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "err") {
            assert!(path.with_extension("toml").exists(), "{} is left over", path.display());
        }
    }
}

#[test]
fn a_small_manifest_gets_the_defaults() {
    let manifest = parse(MINIMAL);
    let folder = std::path::absolute(gallery()).expect("a path");
    assert_eq!(manifest.path, folder.join("bellwether.toml"));
    let node = &manifest.node;
    assert_eq!(node.id.as_str(), "node-1");
    assert_eq!(node.advertise, HostPort { host: "127.0.0.1".to_owned(), port: 0 });
    assert_eq!(node.listen, node.advertise);
    assert_eq!(node.data_dir, folder.join(".bellwether/node-1"));
    assert_eq!(node.admin, AdminAddress::Unix(folder.join(".bellwether/node-1/admin.sock")));
    assert_eq!(node.tls, None);
    let coordination = &manifest.coordination;
    assert_eq!(coordination.connect, Connect::Memory);
    assert_eq!(coordination.root, "/bellwether");
    assert_eq!(coordination.session_timeout, Duration::from_secs(6));
    assert_eq!(coordination.tick_time, Duration::from_secs(2));
    assert!(coordination.auth.is_none());
    assert_eq!(manifest.dev, Dev { build: None, nodes: 3 });
    let [group] = manifest.groups.as_slice() else { panic!("{:?}", manifest.groups) };
    assert_eq!(group.name.as_str(), "echo");
    assert_eq!(group.component.file(), Some(folder.join("files/echo.component").as_path()));
    assert!(group.config.is_empty() && group.labels.is_empty());
    assert_eq!(group.watch, Watch::Leader);
    assert!(group.watch_file && group.candidate);
    assert!(group.worker.parallelism >= 1);
    assert_eq!((group.worker.queue, &group.worker.component), (64, &None));
    assert_eq!((group.tick.every, group.tick.always), (Duration::from_secs(1), false));
    assert_eq!(group.limits, Limits::default());
    assert_eq!(group.grants, Grants::default());
    assert_eq!(group.on_failure, FailurePolicy::default());
}

#[test]
fn a_full_manifest_means_what_it_says() {
    let manifest = parse(
        r#"
        [node]
        id = "n.1"
        advertise = "node-1.example:7400"
        listen = "[::]:7400"
        data_dir = "./state/../data"
        admin = "127.0.0.1:7401"
        tls = { cert = "files/cert.pem", key = "files/key.pem", ca = "files/cert.pem" }

        [coordination]
        connect = "zookeeper://zk1,[::1]:2182/app"
        root = "/a/b"
        session_timeout = "1m 30s"
        tick_time = "500ms"
        auth = { scheme = "digest", user = "me", password_file = "files/password" }

        [dev]
        build = "make"
        watch = ["files", "../absent"]
        nodes = 5

        [[group]]
        name = "echo"
        component = "files/echo.component"
        config = { text = "t", whole = 1_000, hex = 0x10, fraction = 2.0, yes = true, "a.b" = "dotted" }
        labels = { zone = "a" }
        watch = "all"
        watch_file = false
        candidate = false

        [group.worker]
        parallelism = 3
        queue = 0
        component = "files/echo.component"

        [group.tick]
        every = "10s"
        when = "always"

        [group.limits]
        memory = "1.5 GiB"
        table_elements = 5
        instances = 6
        callback = "7ms"
        task = "8h"
        host_calls = 9
        message = "1MB"
        log = "1 KiB"

        [group.grants]
        env = { A = "b" }
        connect = ["db:5432", "[::1]:80"]
        http = ["https://Hooks.example:443", "http://[::1]:8080/"]
        state = "all"
        workers = false
        logging = false

        [[group.grants.folders]]
        host = "files/folder"
        guest = "/data"

        [[group.grants.folders]]
        host = "files"
        guest = "/"
        mode = "write"

        [group.on_failure]
        restarts = 0
        backoff = "1s"
        backoff_max = "1s"
        sit_out = "2m"

        [[group]]
        name = "second"
        component = "files/echo.component"
        grants = { env = ["PATH"], state = "none" }
        "#,
    );
    let folder = gallery();
    let node = &manifest.node;
    assert_eq!(node.advertise.to_string(), "node-1.example:7400");
    assert_eq!((node.listen.to_string().as_str(), node.listen.is_unspecified()), ("[::]:7400", true));
    assert_eq!(node.data_dir, folder.join("state/../data"));
    assert_eq!(node.admin, AdminAddress::Tcp(([127, 0, 0, 1], 7401).into()));
    assert_eq!(node.tls.as_ref().expect("tls").key, folder.join("files/key.pem"));
    let coordination = &manifest.coordination;
    assert_eq!(coordination.connect.to_string(), "zookeeper://zk1:2181,[::1]:2182/app");
    assert_eq!(coordination.root, "/a/b");
    assert_eq!(coordination.session_timeout, Duration::from_secs(90));
    assert_eq!(coordination.tick_time, Duration::from_millis(500));
    let watch = vec![folder.join("files"), folder.join("../absent")];
    assert_eq!(manifest.dev, Dev { build: Some(Build { command: "make".to_owned(), watch }), nodes: 5 });
    let [group, second] = manifest.groups.as_slice() else { panic!("{:?}", manifest.groups) };
    let expected =
        [("a.b", "dotted"), ("fraction", "2.0"), ("hex", "16"), ("text", "t"), ("whole", "1000"), ("yes", "true")];
    assert_eq!(group.config, expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    assert_eq!(group.labels, BTreeMap::from([("zone".to_owned(), "a".to_owned())]));
    assert_eq!((group.watch, group.watch_file, group.candidate), (Watch::All, false, false));
    assert_eq!((group.worker.parallelism, group.worker.queue), (3, 0));
    assert_eq!(group.worker.component, Some(Reference::File(folder.join("files/echo.component"))));
    assert_eq!((group.tick.every, group.tick.always), (Duration::from_secs(10), true));
    let limits = Limits {
        memory_bytes: 3 << 29,
        table_elements: 5,
        instances: 6,
        callback: Duration::from_millis(7),
        task: Duration::from_secs(8 * 3600),
        host_calls: 9,
        message_bytes: 1_000_000,
        log_bytes: 1024,
    };
    assert_eq!(group.limits, limits);
    let granted =
        |host: &str, guest: &str, mode| FolderGrant { host: folder.join(host), guest: guest.to_owned(), mode };
    let grants = Grants {
        folders: vec![granted("files/folder", "/data", FileMode::Read), granted("files", "/", FileMode::Write)],
        env: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        connect: vec!["db:5432".to_owned(), "[::1]:80".to_owned()],
        http: vec![
            Origin { secure: true, host: "hooks.example".to_owned(), port: 443 },
            Origin { secure: false, host: "[::1]".to_owned(), port: 8080 },
        ],
        state: StateGrant::All,
        workers: false,
        logging: false,
    };
    assert_eq!(group.grants, grants);
    assert_eq!((group.on_failure.restarts, group.on_failure.sit_out), (0, Duration::from_secs(120)));
    assert_eq!(second.grants.env.get("PATH").map(String::as_str), std::env::var("PATH").ok().as_deref());
    assert_eq!(second.grants.state, StateGrant::None);
}

#[test]
fn what_dev_builds_need_not_be_there_and_its_sources_must() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("bellwether.toml");
    let text = format!("[dev]\nbuild = \"make\"\n{}", MINIMAL.replace("files/echo.component", "build/echo.wasm"));
    fs::write(&path, &text).expect("a file");
    let absent = Manifest::load_for_dev(&path).expect_err("no sources").to_string();
    assert!(absent.contains("`dev.watch` is by default") && absent.contains("src"), "{absent}");
    fs::create_dir(folder.path().join("src")).expect("a folder");
    let manifest = Manifest::load_for_dev(&path).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(manifest.dev.build.expect("a build").watch, [folder.path().join("src")]);
    assert_eq!(manifest.groups[0].component.file(), Some(folder.path().join("build/echo.wasm").as_path()));
    let unbuilt = Manifest::load(&path).expect_err("no component").to_string();
    assert!(unbuilt.contains("build it: `make`"), "{unbuilt}");
    fs::write(&path, text.replace("build = \"make\"\n", "")).expect("a file");
    assert!(Manifest::load_for_dev(&path).is_err(), "nothing builds it");
    fs::write(&path, text.replace("\"make\"", "\"make\"\nwatch = [\"src\", \"lib\"]")).expect("a file");
    let absent = Manifest::load_for_dev(&path).expect_err("no lib").to_string();
    assert!(absent.contains("lib") && absent.contains("no such file or folder"), "{absent}");
}

#[test]
fn the_password_is_read_and_never_shown() {
    let text = MINIMAL.replace(
        "connect = \"memory:\"",
        "connect = \"zookeeper://a\"\nauth = { scheme = \"digest\", user = \"me\", password_file = \"files/password\" }",
    );
    let manifest = parse(&text);
    let auth = manifest.coordination.auth.as_ref().expect("an identity");
    assert_eq!(secrecy::ExposeSecret::expose_secret(&auth.password), "correct horse");
    assert!(!format!("{manifest:?}").contains("correct horse"));
    // Cargo sets this variable for every test.
    let manifest = parse(&text.replace("password_file = \"files/password\"", "password_env = \"CARGO_PKG_NAME\""));
    let auth = manifest.coordination.auth.as_ref().expect("an identity");
    assert_eq!(secrecy::ExposeSecret::expose_secret(&auth.password), env!("CARGO_PKG_NAME"));
}

#[test]
fn a_manifest_that_cannot_be_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let absent = Manifest::load(folder.path().join("bellwether.toml")).expect_err("no file").to_string();
    assert!(absent.contains("bellwether.toml") && absent.contains("no such file"), "{absent}");
    assert!(Manifest::load(folder.path()).is_err(), "a folder");
    let path = folder.path().join("latin-1.toml");
    fs::write(&path, b"[node]\n# caf\xe9\n").expect("a file");
    let latin = Manifest::load(&path).expect_err("not UTF-8").to_string();
    assert!(latin.contains("UTF-8") && latin.contains("line 2"), "{latin}");
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("a file");
    let large = Manifest::load(&path).expect_err("too large").to_string();
    assert!(large.contains("too large"), "{large}");
}

#[test]
fn a_relative_path_is_relative_to_the_working_directory() {
    let error = Manifest::parse("", "bellwether.toml").expect_err("empty");
    assert_eq!(error.path(), Path::new("bellwether.toml"));
    let text = MINIMAL.replace("files/echo.component", "Cargo.toml");
    let manifest = Manifest::parse(&text, "bellwether.toml").unwrap_or_else(|error| panic!("{error}"));
    let here = std::env::current_dir().expect("a folder").join("Cargo.toml");
    assert_eq!(manifest.groups[0].component.file(), Some(here.as_path()));
}

#[test]
fn problems_carry_their_key_and_place() {
    let text = MINIMAL.replace("connect = \"memory:\"", "connect = \"memory:\"\ntick_time = \"0s\"");
    let error = Manifest::parse(&text, "x.toml").expect_err("no tick");
    let problem = error.problems().iter().find(|problem| problem.key == "coordination.tick_time").expect("the problem");
    assert_eq!((problem.line, problem.column), (Some(7), Some(13)));
    assert_eq!(problem.reason, "the least is 10ms");
    assert!(error.to_string().contains("x.toml:7:13"), "{error}");
}

#[test]
fn odd_text_does_no_harm() {
    for text in [
        "\u{feff}[node]",
        "[node]\r\nid = 'é'\r\n",
        "[node]\nid = \"\"\"\nmany\nlines\n\"\"\"",
        "node = 1\ncoordination = [[]]\ngroup = [1, {}]",
        "[node]\nid = \"a\\u0000b\"\ndata_dir = \"a\\u0000b\"",
        "[node]\nid = \"\u{1b}[31m\"",
        "[[group]]\n[[group]]\n[group.grants]\nfolders = [1]",
        "a.b.c.d = 1\n\"[\" = 2\n\"x.y\".\"]\" = 3",
        "[node]\nid = \"unclosed",
        "[coordination]\nconnect = \"zookeeper://a\"\n[coordination.auth]\npassword = \"é",
        "=",
        "]",
    ] {
        let message = problems(text);
        assert!(message.starts_with("error: "), "{message}");
        assert!(!message.contains('\u{1b}'), "{message:?}");
    }
}

#[test]
fn many_problems_are_cut_short() {
    let keys: String = (0..100).map(|n| format!("unknown{n} = 1\n")).collect();
    let message = problems(&format!("{keys}{MINIMAL}"));
    assert_eq!(message.matches("error: ").count(), 30);
    assert!(message.ends_with("… and 70 more"), "{message}");
}

#[test]
fn secrets_in_broken_text_are_masked() {
    for text in [
        "[coordination.auth]\npassword = hunter2\n",
        "[coordination]\nauth = { password = hunter2 }\n",
        "[coordination]\nconnect = \"zookeeper://me:hunter2@a\n",
        "[[group]]\nconfig = { level = \"x\", key = hunter2 }\n",
        "[[group]]\nconfig.key = hunter2\n",
        "[[group]]\n[group.config]\nkey = hunter2\n",
        "[[group]]\n[group.config]\nkey = \"\"\"\nhunter2\n",
        "[[group]]\n[group.grants]\nenv = { KEY = hunter2 }\n",
        "[[group]]\n[group.grants.env]\nKEY = \"hunter2\n",
        "[[group]]\ngrants = { env = { API_TOKEN = hunter2 } }\n",
        "[[group]]\ngrants.env.KEY = hunter2\n",
        "my_secret = hunter2\n",
    ] {
        let message = problems(text);
        assert!(!message.contains("hunter2"), "{text}\n{message}");
    }
}

#[test]
fn secrets_in_the_wrong_place_are_masked() {
    for text in [
        "[coordination]\nauth = \"me:hunter2\"\n",
        "[coordination]\nauht = { password = \"hunter2\" }\n",
        "[coordination]\nconect = \"zookeeper://me:hunter2@a\"\n",
        "[coordination.auth]\npassword_evn = \"hunter2\"\n",
        "[[group]]\nconfig = \"hunter2\"\n",
        "[[group]]\nconfg = { key = \"hunter2\" }\n",
        "[[group]]\nsettings = [\"hunter2\"]\n",
        "[[group]]\ngrants = { environment = { KEY = \"hunter2\" } }\n",
        "[[group]]\ngrants = { env = [\"KEY=hunter2\", \"hunter2 is the word\"] }\n",
        "[[group]]\ngrants = { connect = [\"me:hunter2@db:5432\", \"postgres://me:hunter2@db\"] }\n",
        "[[group]]\ngrants = { http = [\"https://me:hunter2@hooks.example\", \"me:hunter2@hooks.example\"] }\n",
        "[[group]]\ngrants = { htp = [\"https://me:hunter2@hooks.example\"] }\n",
    ] {
        let message = problems(text);
        assert!(!message.contains("hunter2"), "{text}\n{message}");
    }
}

#[test]
fn the_schema_is_what_is_checked_in() {
    let path = package().join("bellwether.schema.json");
    let generated = schema();
    if blessing() {
        fs::write(&path, format!("{generated:#}\n")).expect("the schema can be written");
        return;
    }
    let stored: Value = serde_json::from_str(&fs::read_to_string(&path).expect("the schema")).expect("JSON");
    assert!(stored == generated, "bellwether.schema.json is not what the code says: run this test with BLESS=1");
}

/// A manifest made of the schema's defaults and, where a key is required, examples.
fn written_out(schema: &Value) -> Option<toml::Value> {
    if let Some(properties) = schema["properties"].as_object() {
        let table: toml::Table =
            properties.iter().filter_map(|(key, schema)| Some((key.clone(), written_out(schema)?))).collect();
        return Some(table.into());
    }
    schema.get("default").map(|default| toml::Value::try_from(default).expect("a value that TOML has"))
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_code() {
    fn merge(into: &mut toml::Table, from: toml::Table) {
        for (key, value) in from {
            match (into.get_mut(&key), value) {
                (Some(toml::Value::Table(into)), toml::Value::Table(from)) => merge(into, from),
                (Some(_), _) => {}
                (None, value) => {
                    into.insert(key, value);
                }
            }
        }
    }
    let schema = schema();
    let mut manifest: toml::Table = toml::from_str(MINIMAL).expect("TOML");
    let required = ["auth", "tls"];
    for (table, mut defaults) in [
        ("node", written_out(&schema["properties"]["node"]).expect("a table")),
        ("coordination", written_out(&schema["properties"]["coordination"]).expect("a table")),
    ] {
        let defaults = defaults.as_table_mut().expect("a table");
        defaults.retain(|key, _| !required.contains(&key));
        merge(manifest[table].as_table_mut().expect("a table"), defaults.clone());
    }
    let group = written_out(&schema["properties"]["group"]["items"]).expect("a table");
    merge(manifest["group"][0].as_table_mut().expect("a table"), group.as_table().expect("a table").clone());
    let text = toml::to_string(&manifest).expect("TOML");
    assert!(text.contains("sit_out") && text.contains("tick_time") && text.contains("advertise"), "{text}");
    assert_eq!(format!("{:#?}", parse(&text)), format!("{:#?}", parse(MINIMAL)));
}

/// Every table of the schema, by its header, with its keys.
fn tables(header: &str, schema: &Value, found: &mut BTreeMap<String, BTreeMap<String, Value>>) {
    let (schema, list) =
        if schema["items"]["properties"].is_object() { (&schema["items"], true) } else { (schema, false) };
    let Some(properties) = schema["properties"].as_object() else { return };
    let here = match header {
        "" => String::new(),
        header if list => format!("[[{header}]]"),
        header => format!("[{header}]"),
    };
    let keys = properties.iter().map(|(key, schema)| (key.clone(), schema.clone())).collect();
    found.insert(here, keys);
    for (key, schema) in properties {
        let below = if header.is_empty() { key.clone() } else { format!("{header}.{key}") };
        tables(&below, schema, found);
    }
}

/// The rows of the reference, by the table's header in the section's title: key, type, default.
fn reference() -> BTreeMap<String, BTreeMap<String, Vec<String>>> {
    let text = fs::read_to_string(package().join("MANIFEST.md")).expect("MANIFEST.md");
    let mut sections: BTreeMap<String, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut section = None;
    for line in text.lines() {
        if line.starts_with('#') {
            let title = line.trim_start_matches(['#', ' ']);
            section = title.strip_prefix('`').and_then(|rest| rest.split('`').next()).map(str::to_owned);
        } else if let Some(section) = &section
            && let Some(row) = line.strip_prefix("| `")
        {
            let cells: Vec<String> =
                row.split(" | ").map(|cell| cell.trim_matches(['`', ' ', '|']).to_owned()).collect();
            sections.entry(section.clone()).or_default().insert(cells[0].clone(), cells);
        }
    }
    sections
}

#[test]
fn the_reference_has_every_key_with_its_default_and_no_other() {
    let mut expected = BTreeMap::new();
    tables("", &schema(), &mut expected);
    let reference = reference();
    for (table, keys) in expected.iter().filter(|(table, _)| !table.is_empty()) {
        let rows = reference.get(table).unwrap_or_else(|| panic!("MANIFEST.md has no section `{table}`"));
        // Tables with a section of their own need no row.
        let is_table = |key: &&String| {
            let path = format!("{}.{key}", table.trim_matches(['[', ']']));
            expected.contains_key(&format!("[{path}]")) || expected.contains_key(&format!("[[{path}]]"))
        };
        let wanted: BTreeSet<&String> = keys.keys().filter(|key| !is_table(key)).collect();
        let found: BTreeSet<&String> = rows.keys().filter(|key| !is_table(key)).collect();
        assert_eq!(wanted, found, "in the section `{table}` of MANIFEST.md");
        for key in wanted {
            if let Some(default) =
                keys[key].get("default").filter(|default| !default.is_object() && !default.is_array())
            {
                let default = default.as_str().map_or_else(|| default.to_string(), |text| format!("\"{text}\""));
                let cells = &rows[key];
                assert_eq!(
                    cells.get(2),
                    Some(&default),
                    "the default of `{key}` in the section `{table}` of MANIFEST.md"
                );
            }
        }
    }
    for table in reference.keys() {
        assert!(expected.contains_key(table), "MANIFEST.md has a section `{table}`, but there is no such table");
    }
}

#[test]
fn the_examples_of_the_reference_are_good() {
    let text = fs::read_to_string(package().join("MANIFEST.md")).expect("MANIFEST.md");
    let examples: Vec<&str> = text
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|e| e.contains("[node]"))
        .collect();
    assert_eq!(examples.len(), 2, "the smallest manifest and the complete one");
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["indexer.wasm", "indexer-worker.wasm"] {
        fs::write(folder.path().join(name), b"\0asm\x0d\0\x01\0").expect("a file");
    }
    for name in ["tls", "data", "cache"] {
        fs::create_dir(folder.path().join(name)).expect("a folder");
    }
    let files = [
        ("cert.pem", "tls/node.pem"),
        ("key.pem", "tls/node.key"),
        ("cert.pem", "tls/ca.pem"),
        ("cert.pem", "tls/registry-ca.pem"),
    ];
    for (from, to) in files {
        fs::copy(gallery().join("files").join(from), folder.path().join(to)).expect("a file");
    }
    fs::write(folder.path().join("zk-password"), "correct horse\n").expect("a file");
    for example in &examples {
        if let Err(error) = Manifest::parse(example, folder.path().join("bellwether.toml")) {
            panic!("{error}");
        }
    }
    // The complete one leaves nothing out.
    let mut all = BTreeMap::new();
    tables("", &schema(), &mut all);
    let complete = examples[1];
    for key in all.values().flat_map(BTreeMap::keys) {
        let alternative = key == "password_env";
        assert!(alternative || complete.contains(key.as_str()), "the complete example has no `{key}`");
    }
}
