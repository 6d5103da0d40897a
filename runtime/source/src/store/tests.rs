use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::*;
use crate::signature::PrivateKey;

fn open(folder: &Path, limit: u64) -> Store {
    Store::open(folder, limit).unwrap()
}

fn put(store: &Store, bytes: &[u8]) -> Digest {
    let digest = Digest::of(bytes);
    store.put(&digest, bytes, &[]).unwrap();
    digest
}

/// Makes a component look as if it was used so long ago.
fn age(store: &Store, digest: &Digest, seconds: u64) {
    let file = fs::OpenOptions::new().append(true).open(store.path(digest)).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

fn digests(store: &Store) -> Vec<Digest> {
    store.list().unwrap().into_iter().map(|entry| entry.digest).collect()
}

#[test]
fn what_is_put_in_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/store");
    let store = open(&path, 1 << 20);
    let digest = put(&store, b"component");
    assert_eq!(store.get(&digest).as_deref(), Some(b"component".as_slice()));
    assert_eq!(store.get(&Digest::of(b"other")), None);
    assert_eq!(store.part(&digest, 4, 3), Some((Bytes::from_static(b"one"), 9)));
    assert_eq!(store.part(&digest, 90, 3), Some((Bytes::new(), 9)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(store.put(&digest, b"another", &[]).is_err(), "the digest must be that of the bytes");
    drop(store);
    assert!(open(&path, 1 << 20).get(&digest).is_some(), "it lasts");
}

#[test]
fn what_is_damaged_is_never_handed_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1 << 20);
    let (a, b) = (put(&store, b"aaaa"), put(&store, b"bbbb"));
    for digest in [&a, &b] {
        fs::write(store.path(digest), b"aaab").unwrap();
    }
    assert_eq!(store.get(&a), None);
    assert!(!store.path(&a).exists());
    assert_eq!(store.verify().unwrap(), [Damage { digest: b, found: Digest::of(b"aaab") }]);
    assert_eq!(digests(&store), []);
    // Put in again over damage that nobody has noticed yet.
    put(&store, b"aaaa");
    fs::write(store.path(&a), b"x").unwrap();
    put(&store, b"aaaa");
    assert!(store.get(&a).is_some());
}

#[test]
fn a_link_is_not_followed_and_a_folder_that_others_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("s"), 1 << 20);
    let digest = Digest::of(b"outside");
    fs::write(folder.path().join("outside"), b"outside").unwrap();
    std::os::unix::fs::symlink(folder.path().join("outside"), store.path(&digest)).unwrap();
    assert_eq!(store.get(&digest), None);
    let loose = folder.path().join("loose");
    fs::create_dir(&loose).unwrap();
    fs::set_permissions(&loose, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Store::open(&loose, 1).unwrap_err().to_string().contains("others may write"));
}

#[test]
fn what_was_not_used_for_longest_goes_first_and_never_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 30);
    let old = put(&store, b"0123456789");
    age(&store, &old, 300);
    let needed = put(&store, b"needed....");
    age(&store, &needed, 900);
    let pin = store.pin(needed, "g");
    let last = put(&store, b"last......");
    age(&store, &last, 600);
    let image: Reference = "oci://r.example/a:v1".parse().unwrap();
    store.record(&image, last, &image).unwrap();

    // 40 bytes are too many: the only one that nobody cares for goes, though others were not used for longer.
    let new = put(&store, b"new.......");
    let mut left = vec![needed, last, new];
    left.sort();
    assert_eq!(digests(&store), left);
    // Now what a reference stood for last.
    age(&store, &new, 1);
    let newer = put(&store, b"newer.....");
    assert!(store.get(&new).is_none() && store.get(&last).is_some());
    age(&store, &newer, 1);
    // A new one stays, whatever the limit, and so does what is needed.
    let large = put(&store, &[7; 100]);
    let mut left = vec![needed, large];
    left.sort();
    assert_eq!(digests(&store), left);
    drop(pin);
    put(&store, b"x");
    assert_eq!(store.get(&needed), None);
}

#[test]
fn what_another_process_needs_stays() {
    let folder = tempfile::tempdir().unwrap();
    // Two stores in one folder lock each other out as two processes do.
    let (one, two) = (open(folder.path(), 10), open(folder.path(), 10));
    let digest = put(&one, b"0123456789");
    let pin = one.pin(digest, "g");
    assert!(one.is_pinned(&digest, "g") && !one.is_pinned(&digest, "h") && !two.is_pinned(&digest, "g"));
    age(&one, &digest, 900);
    put(&two, b"another one");
    assert!(two.get(&digest).is_some());
    assert!(two.list().unwrap().iter().any(|entry| entry.digest == digest && entry.needed));
    drop((pin, one));
    age(&two, &digest, 900);
    assert!(two.clean().unwrap().removed.contains(&digest));
}

#[test]
fn what_a_process_left_behind_that_died_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1 << 20);
    let digest = put(&store, b"whole");
    let torn = store.components().join(".new-torn");
    fs::write(&torn, b"tor").unwrap();
    let stale = folder.path().join("users/99999999-0");
    fs::write(&stale, format!("{}\n", digest.hex())).unwrap();
    // One that is being written is locked.
    let busy = store.components().join(".new-busy");
    fs::write(&busy, b"bus").unwrap();
    let held = File::open(&busy).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert_eq!(digests(&store), [digest], "torn files are no components");
    let again = open(folder.path(), 1 << 20);
    assert!(!torn.exists() && !stale.exists() && busy.exists());
    drop(held);
    let cleaned = again.clean().unwrap();
    assert!(!busy.exists() && cleaned.bytes == 3 + 5, "{cleaned:?}");
    assert_eq!(cleaned.removed, [digest], "nobody needs it");
}

#[test]
fn signatures_come_with_the_component_and_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1 << 20);
    let digest = Digest::of(b"component");
    let [a, b] = ["a", "b"].map(|name| PrivateKey::generate(name).unwrap().sign(&digest));
    store.put(&digest, b"component", std::slice::from_ref(&a)).unwrap();
    store.put(&digest, b"component", &[a.clone(), b.clone()]).unwrap();
    store.put(&digest, b"component", &[]).unwrap();
    assert_eq!(store.signatures(&digest), [a, b]);
    store.clean().unwrap();
    assert_eq!(store.signatures(&digest), []);
}

#[test]
fn records_are_bounded_and_the_newest_stay() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), 1 << 20);
    let reference = |n: usize| format!("oci://r.example/a:v{n}").parse::<Reference>().unwrap();
    for n in 0..MAX_RECORDS + 3 {
        store.record(&reference(n), Digest::of(b"a"), &reference(n)).unwrap();
    }
    assert_eq!(store.records().len(), MAX_RECORDS);
    let newest = store.recorded(&reference(MAX_RECORDS + 2)).unwrap();
    assert_eq!((newest.digest, newest.reference), (Digest::of(b"a"), reference(MAX_RECORDS + 2).to_string()));
    let path = store.record_path(&reference(MAX_RECORDS + 2));
    fs::write(path, b"{").unwrap();
    assert_eq!(store.recorded(&reference(MAX_RECORDS + 2)), None, "a torn record is as good as none");
}

#[test]
fn many_at_once_in_a_small_store_never_see_half_a_component_or_lose_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let component = |n: u8| vec![n; 1000 + usize::from(n)];
    // Each has a store of its own, as a process has: room for three of twelve.
    std::thread::scope(|scope| {
        for user in 0..4_u8 {
            let (path, component) = (folder.path(), &component);
            scope.spawn(move || {
                let store = open(path, 3 * 1024);
                let mine = Digest::of(&component(user));
                let _pin = store.pin(mine, "g");
                put(&store, &component(user));
                for round in 0..12_u8 {
                    let other = component((user * 5 + round) % 12);
                    put(&store, &other);
                    if let Some(found) = store.get(&Digest::of(&other)) {
                        assert_eq!(found, other);
                    }
                    assert!(store.get(&mine).is_some(), "user {user} lost its own in round {round}");
                }
            });
        }
    });
    let store = open(folder.path(), 3 * 1024);
    assert_eq!(store.verify().unwrap(), []);
    store.clean().unwrap();
    assert_eq!(digests(&store), []);
    let left: Vec<_> = fs::read_dir(store.components()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}
