;; A component of its own kind: nothing that a guest must export.
(component
  (instance $run)
  (export "my:guest/run@1.0.0" (instance $run)))
