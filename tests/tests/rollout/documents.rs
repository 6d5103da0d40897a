//! Documents that a node does not understand.

use anyhow::Result;
use bellwether_tests::script::Script;

use crate::bed::{Bed, GROUP, call, deploy, planned_digest};

#[test]
fn a_document_that_is_not_understood_is_reported_and_the_nodes_serve_on() -> Result<()> {
    let script = Script::new()?;
    let bed = Bed::start(2, |_| script.group(""))?;
    let leader = bed.leader()?;
    let path = format!("/bellwether/{GROUP}/release");
    let planned = deploy(leader, &bed.components.variant("probe", 2)?, &[])?;
    let good = bed.release()?.data;
    for (garbage, says) in [
        (&b"\xff\xfe what is this"[..], "holds no document of bellwether's"),
        (br#"{"format": 2, "current": "of another kind"}"#, "is of format 2"),
        (br#"{"format": 1, "current": 7}"#, "holds no document of bellwether's"),
    ] {
        bed.znodes.set(&path, garbage)?;
        bed.cluster.wait_until("every node to say so", |cluster| {
            let says =
                |group: serde_json::Value| group["last_error"].as_str().is_some_and(|error| error.contains(says));
            cluster.nodes().iter().all(|node| node.group(GROUP).is_ok_and(says))
        })?;
        bed.assert_all_run(planned_digest(&planned)?)?;
        assert_eq!(script.order(&bed.cluster, GROUP, "echo served")?, "served", "the guest serves on");
        let refused = call(leader, &["deploy", GROUP, &bed.components.variant("probe", 3)?.display().to_string()])?;
        assert_eq!(refused.code(), Some(1), "{}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains(says) && refused.stderr.contains(&path), "{}", refused.stderr);
        assert_eq!(bed.release()?.data, garbage, "what is not understood is left alone");
    }
    bed.znodes.set(&path, &good)?;
    bed.cluster.wait_until("it to be understood again", |cluster| {
        cluster.nodes().iter().all(|node| node.group(GROUP).is_ok_and(|group| group["last_error"].is_null()))
    })?;
    let next = deploy(leader, &bed.components.variant("probe", 3)?, &["--config", "on-tick=script /orders/script"])?;
    bed.assert_all_run(planned_digest(&next)?)
}
