//! The contract as Rust: the only place where bindings are generated. The host is made from the fullest world, so that
//! whatever a guest imports or exports is known here; what a given guest gets is decided when it is linked.
#![allow(missing_docs, dead_code, clippy::all, unused_qualifications, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "everything",
    imports: { default: async | trappable },
    exports: { default: async },
    include_component_type: true,
});
