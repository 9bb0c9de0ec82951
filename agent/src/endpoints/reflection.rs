//! gRPC reflection: which services a socket has, and the descriptors of their messages.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use spire_core::grpc::Router;
use spire_core::wire::DESCRIPTORS;
use tonic_reflection::pb::{v1, v1alpha};
use tonic_reflection::server::{Builder, Error};

/// The service itself, in both of its versions.
const OWN_NAMES: [&str; 2] =
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Adds reflection for the services that the `files` of our descriptors define under `names`.
/// Clients of either version are told the same.
pub(super) fn add_to(router: Router, names: &[&str], files: &[&str]) -> Router {
    let described = described(files);
    let builder = || {
        let builder = Builder::configure()
            .register_file_descriptor_set(described.clone())
            .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(v1alpha::FILE_DESCRIPTOR_SET);
        names.iter().chain(&OWN_NAMES).fold(builder, |builder, name| {
            builder.with_service_name(*name) //
        })
    };
    let build = || -> Result<Router, Error> {
        Ok(router.with(builder().build_v1()?).with(builder().build_v1alpha()?))
    };
    build().expect("the descriptors were made by the compiler of this build")
}

/// The descriptors of `files` and of all that they import, and no others: what a socket does not
/// have is none of its clients' business.
fn described(files: &[&str]) -> FileDescriptorSet {
    let all = FileDescriptorSet::decode(DESCRIPTORS).expect("made by the compiler of this build");
    let mut wanted: BTreeSet<String> = files.iter().map(ToString::to_string).collect();
    // A file stands behind all that it imports, so that one pass backwards finds everything.
    let mut file: Vec<FileDescriptorProto> = Vec::new();
    for found in all.file.into_iter().rev() {
        if wanted.contains(found.name()) {
            wanted.extend(found.dependency.iter().cloned());
            file.push(found);
        }
    }
    file.reverse();
    FileDescriptorSet { file }
}
