;; Built for `wasm32-wasip1`, or `wasm32-unknown-unknown`: not a component.
(module (func (export "on-elected")))
