;; The right names, and other types: written down by hand, or from another contract. A callback is missing too.
(component
  (core module $m
    (func (export "f") (param i32))
    (func (export "g") (result i32) i32.const 1))
  (core instance $i (instantiate $m))
  (func $elected (param "epoch" u32) (canon lift (core func $i "f")))
  (func $tick (result bool) (canon lift (core func $i "g")))
  (instance $lifecycle (export "on-elected" (func $elected)) (export "on-demoted" (func $elected)))
  (instance $ticker (export "on-tick" (func $tick)))
  (export "bellwether:runtime/lifecycle@0.1.0" (instance $lifecycle))
  (export "bellwether:runtime/ticker@0.1.0" (instance $ticker)))
