//! `[coordination]`.

use std::path::Path;
use std::time::Duration;

use bellwether_core::config::Timing;
use secrecy::SecretString;

use super::super::address::{self, Connect};
use super::super::model::{Coordination, DigestAuth};
use super::super::raw::{RawAuth, RawCoordination};
use super::{Context, HOUR};

/// The largest password file.
const MAX_PASSWORD: usize = 4 << 10;

pub(super) fn check(cx: &mut Context<'_>, raw: RawCoordination) -> Option<Coordination> {
    let connect = raw.connect.and_then(|text| {
        let help = "write `connect = \"zookeeper://host:port,host:port/chroot\"`, or `connect = \"memory:\"` for a node that is alone";
        cx.take("coordination.connect", text.parse::<Connect>(), "is not the address of a coordinator", help)
    });
    let root = raw.root.unwrap_or_else(|| "/bellwether".to_owned());
    if let Err(why) = address::check_znode(&root) {
        cx.tell(
            cx.problem(
                "coordination.root",
                format!("`coordination.root` is not the absolute path of a znode: {root:?}"),
            )
            .because(format!("it {why}"))
            .help("write an absolute path, as in `root = \"/bellwether\"`"),
        );
    }
    let session_timeout = cx.duration(
        "coordination.session_timeout",
        raw.session_timeout,
        Duration::from_secs(6),
        Duration::from_millis(100)..=HOUR,
    );
    let tick_time = cx.duration(
        "coordination.tick_time",
        raw.tick_time,
        Duration::from_secs(2),
        Duration::from_millis(10)..=Duration::from_secs(60),
    );
    // The coordinator in this process has no tickTime.
    if matches!(connect, Some(Connect::ZooKeeper { .. }))
        && let Err(short) = Timing::new(session_timeout, tick_time)
    {
        cx.tell(
            cx.problem(
                "coordination.session_timeout",
                "`coordination.session_timeout` is too short for the ensemble's tickTime",
            )
            .because(short.to_string())
            .help(format!(
                "write `session_timeout = \"{}ms\"` or more, or set `tick_time` to what the ensemble's zoo.cfg says",
                short.least.as_millis()
            )),
        );
    }
    let wants_auth = raw.auth.is_some();
    let auth = raw.auth.and_then(|raw| auth(cx, raw));
    if wants_auth && auth.is_none() {
        return None;
    }
    if auth.is_some() && connect == Some(Connect::Memory) {
        cx.tell(
            cx.problem("coordination.auth", "`coordination.auth` has no use with `connect = \"memory:\"`")
                .because("the coordinator in this process knows no identities")
                .related(cx.places.value_or_parent("coordination.connect"), "because of this")
                .help("leave one of the two out"),
        );
    }
    Some(Coordination { connect: connect?, root, session_timeout, tick_time, auth })
}

fn auth(cx: &mut Context<'_>, raw: RawAuth) -> Option<DigestAuth> {
    const AUTH: &str = "coordination.auth";
    const ENV: &str = "coordination.auth.password_env";
    const FILE: &str = "coordination.auth.password_file";
    if let Some(user) = raw.user.as_ref().filter(|user| user.is_empty() || user.contains(':')) {
        let why = if user.is_empty() { "it is empty" } else { "it has a colon, which separates user and password" };
        cx.tell(cx.problem("coordination.auth.user", "`coordination.auth.user` is not a user").because(why));
    }
    match (cx.written(ENV), cx.written(FILE)) {
        (true, true) => {
            cx.tell(
                cx.problem(FILE, "`coordination.auth` names two places for the password")
                    .because("this is one")
                    .related(cx.places.value_or_parent(ENV), "this is the other")
                    .help("leave out `password_env` or `password_file`"),
            );
            return None;
        }
        // A key that nobody knows was most likely meant for one of them, and has been told of.
        (false, false) if !cx.places.has_unknown_keys(AUTH) => {
            cx.tell(
                cx.problem(AUTH, "`coordination.auth` does not say where the password is")
                    .because("one of `password_env` and `password_file` is required here")
                    .help("add `password_env = \"ZK_PASSWORD\"`, the name of an environment variable, or `password_file = \"zk-password\"`"),
            );
            return None;
        }
        _ => {}
    }
    let from_env = raw.password_env.and_then(|name| password_env(cx, ENV, &name));
    let from_file = raw.password_file.and_then(|path| password_file(cx, FILE, &path));
    raw.scheme?;
    Some(DigestAuth { user: raw.user?, password: from_env.or(from_file)? })
}

fn password_env(cx: &mut Context<'_>, key: &str, name: &str) -> Option<SecretString> {
    let named = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        // The text is not repeated: it may be the password itself.
        cx.tell(
            cx.problem(key, format!("`{key}` is not the name of an environment variable"))
                .because("a name has letters, digits and `_`")
                .help("write the variable's name here, not the password"),
        );
        return None;
    }
    let problem = match (cx.environment)(name).map(std::ffi::OsString::into_string) {
        Some(Ok(password)) if !password.is_empty() => return Some(password.into()),
        Some(Ok(_)) => cx.problem(key, format!("the environment variable `{name}` is empty")),
        Some(Err(_)) => cx.problem(key, format!("the environment variable `{name}` is not valid UTF-8")),
        None => cx.problem(key, format!("the environment variable `{name}` is not set")),
    };
    cx.tell(
        problem
            .because("it should hold the password")
            .help(format!("set `{name}` in the environment that bellwether starts in")),
    );
    None
}

fn password_file(cx: &mut Context<'_>, key: &str, path: &Path) -> Option<SecretString> {
    let (full, contents) = cx.contents(key, path, "the password file", MAX_PASSWORD)?;
    let reason = match String::from_utf8(contents) {
        Err(_) => "it is not valid UTF-8",
        Ok(text) => {
            match text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&text) {
                "" => "it is empty",
                password if password.contains(['\n', '\r']) => "it has more than one line",
                password => return Some(password.into()),
            }
        }
    };
    cx.tell_path(key, path, &full, "the password file holds no password", reason.to_owned());
    None
}
