//! What `wit-bindgen` makes of `wit/plugin.wit`: `base` has what every plugin exports, the shared
//! types and all imports; each role adds one export. A component imports only what its code calls,
//! so one set of imports serves plugins with and without access to prompts. Nothing here is named
//! outside of this crate but through its re-exports.

#![allow(missing_docs, reason = "generated; the text is in plugin.wit")]
#![allow(unreachable_pub, reason = "generated")]
#![allow(unused_qualifications, reason = "generated")]
#![allow(clippy::all, clippy::pedantic, clippy::restriction, reason = "generated")]

pub mod base {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package switchyard:sdk;
            world base {
                import switchyard:plugin/log@0.1.0;
                import switchyard:plugin/config@0.1.0;
                import switchyard:plugin/adapters@0.1.0;
                import switchyard:plugin/prompt@0.1.0;
                import switchyard:plugin/tokenizer@0.1.0;
                export switchyard:plugin/lifecycle@0.1.0;
            }
        ",
        generate_all,
        pub_export_macro: true,
        generate_unused_types: true,
        additional_derives: [PartialEq],
    });
}

pub mod router {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package switchyard:sdk;
            world router { export switchyard:plugin/router@0.1.0; }
        ",
        pub_export_macro: true,
        additional_derives: [PartialEq],
        with: {
            "switchyard:plugin/types@0.1.0": crate::bindings::base::switchyard::plugin::types,
            "switchyard:plugin/router@0.1.0": generate,
        },
    });
}

pub mod template {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package switchyard:sdk;
            world template { export switchyard:plugin/template@0.1.0; }
        ",
        pub_export_macro: true,
        additional_derives: [PartialEq],
        with: {
            "switchyard:plugin/types@0.1.0": crate::bindings::base::switchyard::plugin::types,
            "switchyard:plugin/template@0.1.0": generate,
        },
    });
}

pub mod parser {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package switchyard:sdk;
            world parser { export switchyard:plugin/parser@0.1.0; }
        ",
        pub_export_macro: true,
        additional_derives: [PartialEq],
        with: {
            "switchyard:plugin/types@0.1.0": crate::bindings::base::switchyard::plugin::types,
            "switchyard:plugin/parser@0.1.0": generate,
        },
    });
}
