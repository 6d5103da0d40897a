//! Version 1 of the word count: counts words exactly as they are written.
#![cfg(target_arch = "wasm32")]

use wordcount_common::guest::{Guest, Version};
use wordcount_common::release::Release;
use wordcount_common::words::Mode;

struct Exact;

impl Version for Exact {
    const RELEASE: Release = Release { version: "v1", starts: Mode::Exact, knows: &[Mode::Exact] };
}

type Component = Guest<Exact>;

wordcount_common::guest::bindings::export!(Component with_types_in wordcount_common::guest::bindings);
