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

/// The worker's export as `handle`. By the types above, a task's payload would be copied once more before it is copied to the guest.
pub mod lent {
    use wasmtime::component::{Component, ComponentExportIndex, ComponentType, Lower};

    /// `worker.task`.
    #[derive(ComponentType, Lower)]
    #[component(record)]
    pub struct Task<'a> {
        pub sender: &'a str,
        pub epoch: Option<u64>,
        pub payload: &'a [u8],
    }

    /// What `worker.handle` is given and gives.
    pub type Handle<'a> = wasmtime::component::TypedFunc<(Task<'a>,), (Result<Vec<u8>, String>,)>;

    /// Where a component has `worker.handle`.
    pub fn handle(component: &Component) -> Option<ComponentExportIndex> {
        let worker = component.get_export_index(None, "bellwether:runtime/worker@0.1.0")?;
        component.get_export_index(Some(&worker), "handle")
    }
}
