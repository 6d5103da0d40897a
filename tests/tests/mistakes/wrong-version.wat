;; Built against another version of the contract.
(component
  (import "bellwether:runtime/cluster@0.2.0" (instance))
  (instance $lifecycle)
  (export "bellwether:runtime/lifecycle@0.2.0" (instance $lifecycle)))
