//! What a store holds for its instance: the host, the grants made real, and the meters of the limits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::grants::{FileMode, Grants};
use crate::host::{Host, LogLevel};
use crate::http::Outgoing;
use crate::limits::Limits;
use crate::output::{Channel, Output, Stream};
use crate::settings::Settings;
use crate::unsent;

/// Handles (files, sockets, streams) that one instance may hold at once.
const HANDLES: usize = 4_096;

/// A limit that the guest ran into.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct OverLimit(pub(crate) String);

/// The data of a store.
pub(crate) struct Ctx {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) settings: Settings,
    pub(crate) limits: Arc<Limits>,
    pub(crate) output: Output,
    pub(crate) meter: Meter,
    /// When the present call must have ended.
    pub(crate) deadline: Instant,
    /// Whether the guest has computed for long in the present call.
    pub(crate) computed: bool,
    host_calls: u64,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outgoing: Outgoing,
    table: ResourceTable,
}

impl Ctx {
    pub(crate) fn new(
        host: Arc<dyn Host>,
        grants: &Grants,
        limits: &Arc<Limits>,
        config: &Arc<BTreeMap<String, String>>,
    ) -> Result<Self, String> {
        let output = Output::new(Arc::clone(&host), grants.logging, limits.log_bytes);
        let wasi = wasi(grants, &output)?;
        let outgoing = Outgoing::new(Arc::clone(&host), &grants.http, output.clone(), limits.message_bytes);
        let mut table = ResourceTable::new();
        table.set_max_capacity(if grants.http.is_empty() { HANDLES } else { unsent::HANDLES });
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(unsent::FIELDS);
        Ok(Self {
            host,
            settings: Settings::new(config),
            limits: Arc::clone(limits),
            output,
            meter: Meter::new(limits),
            deadline: Instant::now(),
            computed: false,
            host_calls: 0,
            wasi,
            http,
            outgoing,
            table,
        })
    }

    /// A call begins.
    pub(crate) fn begin(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.outgoing.begin(deadline);
        self.computed = false;
        self.host_calls = 0;
        self.output.begin();
    }

    /// A call has ended.
    pub(crate) fn end(&mut self) {
        self.outgoing.end();
        for (level, message) in self.settings.findings() {
            self.output.message(level, "runtime", &message);
        }
        self.output.end();
    }

    /// Tells whoever wrote the guest what an error that it gets cannot say: what to do about it.
    pub(crate) fn advise(&self, message: &str) {
        self.output.message(LogLevel::Warn, "runtime", message);
    }

    /// The handles that the instance may hold at once.
    pub(crate) fn handles(&self) -> usize {
        self.table.max_capacity()
    }

    /// Room for one more request with a body, if there is.
    pub(crate) fn room_for_a_body(&self) -> Option<OwnedSemaphorePermit> {
        self.outgoing.room_for_a_body()
    }

    /// Counts a call of the contract's imports.
    pub(crate) fn count(&mut self) -> wasmtime::Result<()> {
        self.host_calls = self.host_calls.saturating_add(1);
        self.check_calls()
    }

    /// Fails once too many calls were made. WASI's calls are counted where they cannot fail, so the epoch asks again.
    pub(crate) fn check_calls(&mut self) -> wasmtime::Result<()> {
        if self.host_calls <= self.limits.host_calls {
            return Ok(());
        }
        let limit = self.limits.host_calls;
        Err(self
            .meter
            .over(format!("more than {limit} calls to the host within one call (`host_calls` under [group.limits])")))
    }
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.host_calls = self.host_calls.saturating_add(1);
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Ctx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.host_calls = self.host_calls.saturating_add(1);
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.outgoing }
    }
}

/// The time that something which the guest waits for has: what it asks for, and never so much that the guest cannot hear of the
/// time-out before its own budget ends.
pub(crate) fn allowance(asked: Duration, deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    let margin = (left / 10).min(Duration::from_millis(50));
    asked.min(left.saturating_sub(margin))
}

fn wasi(grants: &Grants, output: &Output) -> Result<WasiCtx, String> {
    let mut builder = WasiCtx::builder();
    builder.stdout(Stream::new(output, Channel::Stdout)).stderr(Stream::new(output, Channel::Stderr));
    for (name, value) in &grants.env {
        builder.env(name, value);
    }
    for folder in &grants.folders {
        let perms = match folder.mode {
            FileMode::Read => FsPerms::ReadOnly,
            FileMode::Write => FsPerms::ReadWrite,
        };
        builder.preopened_dir(&folder.host, &folder.guest, perms).map_err(|error| {
            format!(
                "the granted folder {} cannot be opened: {}; make it, or correct `folders` under [group.grants]",
                folder.host.display(),
                error.root_cause()
            )
        })?;
    }
    if !grants.connect.is_empty() {
        let granted: Arc<[String]> = grants.connect.clone().into();
        builder.allow_tcp(true).allow_ip_name_lookup(true).socket_addr_check(move |address, purpose| {
            let granted = Arc::clone(&granted);
            // A task of its own, since the future that resolves names is not `Sync`, as this one must be.
            let verdict = tokio::spawn(async move { allowed(&granted, address, purpose).await });
            Box::pin(async move { verdict.await.unwrap_or(false) })
        });
    }
    Ok(builder.build())
}

/// Whether the address is one that the manifest grants, by what its names mean now.
async fn allowed(granted: &[String], address: SocketAddr, purpose: SocketAddrUse) -> bool {
    match purpose {
        // The system binds to any free port when a socket connects; listening is refused in any case.
        SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
        SocketAddrUse::TcpConnect => {
            let wanted = (address.ip().to_canonical(), address.port());
            for host in granted {
                if let Ok(mut found) = tokio::net::lookup_host(host.as_str()).await
                    && found.any(|candidate| (candidate.ip().to_canonical(), candidate.port()) == wanted)
                {
                    return true;
                }
            }
            false
        }
        _ => false,
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        // Of a call that was cut off, the last words are still here.
        self.end();
    }
}

/// Counts what an instance has of memory and tables, and refuses more than its limits.
pub(crate) struct Meter {
    memory_limit: u64,
    memory: u64,
    growing: u64,
    table_limit: u64,
    instances: usize,
    /// The limit that was hit, if one was.
    pub(crate) hit: Option<String>,
}

impl Meter {
    fn new(limits: &Limits) -> Self {
        Self {
            memory_limit: limits.memory_bytes,
            memory: 0,
            growing: 0,
            table_limit: limits.table_elements,
            instances: limits.instances as usize,
            hit: None,
        }
    }

    pub(crate) fn over(&mut self, what: String) -> wasmtime::Error {
        self.hit = Some(what.clone());
        wasmtime::Error::new(OverLimit(what))
    }
}

/// Bytes for a person.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} bytes"),
        1024..1_048_576 => format!("{} KiB", count.div_ceil(1024)),
        _ => format!("{} MiB", count.div_ceil(1 << 20)),
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let total = self.memory.saturating_add(more);
        if total > self.memory_limit {
            let (limit, total) = (bytes(self.memory_limit), bytes(total));
            return Err(self.over(format!("{total} of memory, where `memory` under [group.limits] allows {limit}")));
        }
        self.memory = total;
        self.growing = more;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory = self.memory.saturating_sub(std::mem::take(&mut self.growing));
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired as u64 > self.table_limit {
            let limit = self.table_limit;
            return Err(self.over(format!("a table of {desired} elements, where the limit is {limit}")));
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.instances
    }

    fn tables(&self) -> usize {
        self.instances
    }

    fn memories(&self) -> usize {
        self.instances
    }
}
