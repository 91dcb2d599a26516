//! What wasmtime generates from the WIT package, and nothing else.
//!
//! One world names every interface of every role, so that all roles share one set of types. No
//! plugin has to match it: imports are linked one by one and exports looked up by interface.
#![allow(missing_docs, unreachable_pub, unused_qualifications, reason = "generated code")]

wasmtime::component::bindgen!({
    path: "../plugin-sdk/wit",
    inline: "
        package switchyard:host;

        world every-role {
            import switchyard:plugin/log@0.1.0;
            import switchyard:plugin/config@0.1.0;
            import switchyard:plugin/adapters@0.1.0;
            import switchyard:plugin/prompt@0.1.0;
            import switchyard:plugin/tokenizer@0.1.0;
            export switchyard:plugin/lifecycle@0.1.0;
            export switchyard:plugin/router@0.1.0;
            export switchyard:plugin/template@0.1.0;
            export switchyard:plugin/parser@0.1.0;
        }
    ",
    imports: { default: trappable },
});
