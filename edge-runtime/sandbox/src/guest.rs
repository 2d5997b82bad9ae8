//! One guest in its Store: calls with a deadline, and memory that is read and written only after a bounds check.

use std::time::Duration;

use wasmtime::{Instance, Memory, Store, TypedFunc, WasmParams, WasmResults};

use crate::error::{bounded, text};
use crate::limits::Limiter;
use crate::ticker::Deadline;
use crate::{Fault, Module, SandboxError, abi};

/// From creation to ready: a guest's start function and its set-up.
pub(crate) const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// For calls that only look something up.
const LOOKUP_DEADLINE: Duration = Duration::from_millis(100);
/// Longest error text that is read from a guest.
const MAX_ERROR_BYTES: usize = 512;

type Load = (i32, i32, i32, i32, i32, i32);

/// A guest that was instantiated.
pub(crate) struct Guest {
    store: Store<Limiter>,
    module: Module,
    memory: Memory,
    pub heap_base: u32,
    pub load: TypedFunc<Load, i32>,
    pub input: TypedFunc<(i32, i32), i32>,
    pub output: TypedFunc<(i32, i32), i32>,
    pub infer: TypedFunc<i32, i32>,
    error: TypedFunc<(), i64>,
    /// Only runners have it.
    pub measure: Option<TypedFunc<(i32, i32), i64>>,
}

impl Guest {
    /// Instantiates `module` within `memory_limit` bytes and checks the ABI that it says it speaks.
    pub(crate) fn new(module: &Module, memory_limit: u64) -> Result<Self, SandboxError> {
        let deadline = module.engine.clock().deadline(LOAD_DEADLINE);
        let mut store = Store::new(module.engine.wasm(), Limiter::new(memory_limit, deadline));
        store.limiter(|limiter| limiter);
        // At every epoch the guest looks at the clock.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| Ok(store.data().at_epoch()));
        let armed = module.engine.arm();
        let instance = Instance::new(&mut store, &module.wasm, &[]);
        drop(armed);
        let instance = instance.map_err(|e| match e.downcast_ref::<wasmtime::Trap>() {
            Some(_) => SandboxError::Load(Fault::of_call(&e)),
            None => SandboxError::Memory(text(&e)),
        })?;
        let missing = |name: &str| SandboxError::Abi { message: format!("it does not export {name}") };
        let memory = instance.get_memory(&mut store, abi::MEMORY).ok_or_else(|| missing(abi::MEMORY))?;
        let heap_base = instance
            .get_global(&mut store, abi::HEAP_BASE)
            .and_then(|global| global.get(&mut store).i32())
            .ok_or_else(|| missing(abi::HEAP_BASE))?;
        let says: TypedFunc<(), i32> = export(&instance, &mut store, abi::ABI)?;
        let mut guest = Self {
            memory,
            heap_base: heap_base.cast_unsigned(),
            load: export(&instance, &mut store, abi::LOAD)?,
            input: export(&instance, &mut store, abi::INPUT)?,
            output: export(&instance, &mut store, abi::OUTPUT)?,
            infer: export(&instance, &mut store, abi::INFER)?,
            error: export(&instance, &mut store, abi::ERROR)?,
            measure: export(&instance, &mut store, abi::MEASURE).ok(),
            module: module.clone(),
            store,
        };
        let version = guest.call(&says, (), LOOKUP_DEADLINE).map_err(SandboxError::Load)?.cast_unsigned();
        if version >> 16 != abi::MAJOR {
            let message = format!("it speaks {}.{}", version >> 16, version & 0xffff);
            return Err(SandboxError::Abi { message });
        }
        Ok(guest)
    }

    /// Gives the memory its final size. Nothing grows afterwards.
    pub(crate) fn grow_once(&mut self, total: u64) -> Result<(), SandboxError> {
        let pages = total.div_ceil(crate::WASM_PAGE).saturating_sub(self.memory.size(&self.store));
        if pages > 0 {
            self.memory.grow(&mut self.store, pages).map_err(|e| SandboxError::Memory(text(&e)))?;
        }
        self.store.data_mut().freeze();
        Ok(())
    }

    /// Calls the guest; whatever it does, the call ends within a tick of `deadline` from now.
    pub(crate) fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
        deadline: Duration,
    ) -> Result<R, Fault> {
        let deadline = self.deadline(deadline);
        self.call_until(function, parameters, deadline)
    }

    /// The moment that is `from_now` away.
    pub(crate) fn deadline(&self, from_now: Duration) -> Deadline {
        self.module.engine.clock().deadline(from_now)
    }

    /// As [`call`](Self::call), with a deadline that began to count before.
    pub(crate) fn call_until<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
        deadline: Deadline,
    ) -> Result<R, Fault> {
        self.store.data_mut().set_deadline(deadline);
        self.store.set_epoch_deadline(1);
        let _armed = self.module.engine.arm();
        function.call(&mut self.store, parameters).map_err(|e| Fault::of_call(&e))
    }

    /// As [`call`](Self::call), for look-ups.
    pub(crate) fn look_up<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        parameters: P,
    ) -> Result<R, Fault> {
        self.call(function, parameters, LOOKUP_DEADLINE)
    }

    /// Bytes of the guest's memory.
    pub(crate) fn bytes(&self, what: &str, address: u32, length: u64) -> Result<&[u8], Fault> {
        let range = range(address, length);
        range.and_then(|range| self.memory.data(&self.store).get(range)).ok_or_else(|| Fault::OutOfBounds {
            what: bounded(what),
            address,
            length,
        })
    }

    /// Bytes of the guest's memory, to write.
    pub(crate) fn bytes_mut(&mut self, what: &str, address: u32, length: u64) -> Result<&mut [u8], Fault> {
        let range = range(address, length);
        range.and_then(|range| self.memory.data_mut(&mut self.store).get_mut(range)).ok_or_else(|| Fault::OutOfBounds {
            what: bounded(what),
            address,
            length,
        })
    }

    /// What a status other than 0 means, in the guest's bounded words.
    pub(crate) fn status(&mut self, code: i32) -> Fault {
        let error = self.error.clone();
        let message = match self.look_up(&error, ()) {
            Ok(0) => "it gave no reason".to_owned(),
            Ok(place) => {
                let place = place.cast_unsigned();
                let length = (place & 0xffff_ffff).min(MAX_ERROR_BYTES as u64);
                match self.bytes("its error text", (place >> 32) as u32, length) {
                    Ok(text) => bounded(&String::from_utf8_lossy(text)),
                    Err(fault) => return fault,
                }
            }
            Err(fault) => return fault,
        };
        Fault::Status { code, message }
    }
}

fn range(address: u32, length: u64) -> Option<std::ops::Range<usize>> {
    let start = usize::try_from(address).ok()?;
    Some(start..start.checked_add(usize::try_from(length).ok()?)?)
}

fn export<P: WasmParams, R: WasmResults>(
    instance: &Instance,
    store: &mut Store<Limiter>,
    name: &str,
) -> Result<TypedFunc<P, R>, SandboxError> {
    instance
        .get_typed_func(store, name)
        .map_err(|e| SandboxError::Abi { message: bounded(&format!("{name}: {}", text(&e))) })
}
