//! A component that takes long to compile, and does what another one does.

use wasm_encoder::{
    CodeSection, Component, ExportKind, ExportSection, Function, FunctionSection, Module, ModuleSection, TypeSection,
    ValType,
};

/// Operations in one function: about 11 bytes each.
const OPERATIONS: u64 = 200;

/// The same component with a module more, which nothing uses and which has about so many bytes of code. `seed` makes each one another.
#[must_use]
pub fn grown(component: &[u8], bytes: usize, seed: u64) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([ValType::I64, ValType::I64], [ValType::I64]);
    let (mut functions, mut code, mut exports) = (FunctionSection::new(), CodeSection::new(), ExportSection::new());
    let mut number = 0;
    while code.byte_len() < bytes {
        let mut function = Function::new([]);
        let mut body = function.instructions();
        for operation in 0..OPERATIONS {
            let constant = seed.wrapping_add(number * OPERATIONS + operation).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            body.local_get(0).i64_const(constant.cast_signed()).i64_mul().local_get(1).i64_xor().local_set(0);
            body.local_get(1).local_get(0).i64_add().local_set(1);
        }
        body.local_get(0).end();
        functions.function(0);
        code.function(&function);
        number += 1;
    }
    exports.export("first", ExportKind::Func, 0);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&exports).section(&code);
    let mut whole = Component::new();
    whole.section(&ModuleSection(&module));
    // A component's sections stand in any order: those of the new one, without its header, follow the others.
    let mut bytes = component.to_vec();
    bytes.extend(&whole.finish()[8..]);
    bytes
}
