//! A function of bytes.

use ballast_plan::quantized::Lookup;

use crate::Memory;

/// Each byte's place in the table.
pub unsafe fn lookup(s: &Lookup, memory: &Memory) {
    let (input, table, out) = (memory.read(s.input), memory.read(s.table), memory.write(s.out));
    for i in 0..s.count as usize {
        *out.add(i) = *table.add(usize::from(*input.add(i)));
    }
}
