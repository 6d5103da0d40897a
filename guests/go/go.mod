// The name that wit-bindgen gives the module of its bindings: this one is completed with them when it is built.
module wit_component

go 1.25

require go.bytecodealliance.org/pkg v0.2.3
