//! Version 2 of the word count: counts `Word` and `word` as one, and can still finish a pass that version 1 began.
#![cfg(target_arch = "wasm32")]

use wordcount_common::guest::{Guest, Version};
use wordcount_common::release::Release;
use wordcount_common::words::Mode;

struct Folded;

impl Version for Folded {
    const RELEASE: Release = Release { version: "v2", starts: Mode::Folded, knows: &[Mode::Folded, Mode::Exact] };
}

type Component = Guest<Folded>;

wordcount_common::guest::bindings::export!(Component with_types_in wordcount_common::guest::bindings);
