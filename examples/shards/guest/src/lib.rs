//! Who serves which shard: the leader says, every node hears. `README.md` beside this says what it promises.

// What is pure is tested by itself; on anything but WebAssembly there is nothing else.
#[cfg(any(test, target_arch = "wasm32"))]
mod assign;
#[cfg(target_arch = "wasm32")]
mod guest;
