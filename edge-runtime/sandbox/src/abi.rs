//! The names of runner ABI v1, and the check that a module has them. The text is `edge-runtime/runner/ABI.md`.

use wasmtime::{ExternType, ValType};

use crate::SandboxError;

/// Major version that this host speaks. A guest of another major is refused; a newer minor is not.
pub(crate) const MAJOR: u32 = 1;

pub(crate) const MEMORY: &str = "memory";
pub(crate) const HEAP_BASE: &str = "__heap_base";
pub(crate) const ABI: &str = "ballast_abi";
pub(crate) const LOAD: &str = "ballast_load";
pub(crate) const INPUT: &str = "ballast_input";
pub(crate) const OUTPUT: &str = "ballast_output";
pub(crate) const INFER: &str = "ballast_infer";
pub(crate) const ERROR: &str = "ballast_error";
pub(crate) const MEASURE: &str = "ballast_measure";

/// Functions that every guest has: parameters (all i32) and whether the result is an i64 instead of an i32.
/// `ballast_measure` is a runner's only.
const FUNCTIONS: [(&str, usize, bool); 6] =
    [(ABI, 0, false), (LOAD, 6, false), (INPUT, 2, false), (OUTPUT, 2, false), (INFER, 1, false), (ERROR, 0, true)];

/// Whether a module has no imports and every export with its type.
pub(crate) fn check(module: &wasmtime::Module) -> Result<(), SandboxError> {
    let abi = |message: String| SandboxError::Abi { message: crate::error::bounded(&message) };
    if let Some(import) = module.imports().next() {
        return Err(abi(format!("it imports {}.{}; a guest has no imports", import.module(), import.name())));
    }
    match module.get_export(MEMORY) {
        Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared() && memory.page_size() == 1 << 16 => {
        }
        _ => return Err(abi(format!("it does not export a 32-bit memory as {MEMORY}"))),
    }
    match module.get_export(HEAP_BASE) {
        Some(ExternType::Global(global)) if matches!(global.content(), ValType::I32) => {}
        _ => return Err(abi(format!("it does not export an i32 global as {HEAP_BASE}"))),
    }
    for (name, parameters, long) in FUNCTIONS {
        let fits = match module.get_export(name) {
            Some(ExternType::Func(function)) => {
                let result = |t: &ValType| if long { matches!(t, ValType::I64) } else { matches!(t, ValType::I32) };
                function.params().len() == parameters
                    && function.params().all(|t| matches!(t, ValType::I32))
                    && function.results().len() == 1
                    && function.results().all(|t| result(&t))
            }
            _ => false,
        };
        if !fits {
            let result = if long { "i64" } else { "i32" };
            return Err(abi(format!("it does not export {name}({parameters} × i32) -> {result}")));
        }
    }
    Ok(())
}
