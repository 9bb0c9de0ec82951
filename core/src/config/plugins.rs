//! `plugins { Type "name" { … } }`: which plugins a file asks for, in its order.

use std::collections::HashSet;
use std::path::PathBuf;

use super::mistake::Mistake;
use super::reader::Reader;
use super::tree::Value;
use super::{ReadError, Section, read_file};

/// One plugin that a file asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PluginConfig {
    /// Its type as written, such as `KeyManager`.
    pub kind: String,
    /// Its name as written, such as `disk`.
    pub name: String,
    /// The body of its `plugin_data`; empty where there is none.
    pub section: Section,
    /// The file that holds its settings instead of `plugin_data`.
    pub plugin_data_file: Option<PathBuf>,
    /// The program of an external plugin, absolute; `None` for a built-in one.
    pub plugin_cmd: Option<PathBuf>,
    /// The arguments of that program.
    pub plugin_args: Vec<String>,
    /// SHA-256 of that program.
    pub plugin_checksum: Option<[u8; 32]>,
    /// Whether it is to be loaded.
    pub enabled: bool,
}

impl PluginConfig {
    /// Its settings: `plugin_data`, or what its file holds at the moment.
    ///
    /// # Errors
    /// [`ReadError`] where that file cannot be read.
    pub fn settings(&self) -> Result<Section, ReadError> {
        match &self.plugin_data_file {
            None => Ok(self.section.clone()),
            Some(path) => read_file(path, false),
        }
    }
}

/// Reads the block `plugins`. `None` where there is no such block.
pub fn read_plugins(reader: &mut Reader<'_>) -> Option<Vec<PluginConfig>> {
    if !reader.has("plugins") {
        return None;
    }
    let mut plugins = Vec::new();
    let mut seen = HashSet::new();
    for kind in reader.block_items("plugins") {
        let path = reader.path_of("plugins");
        let Value::Block(names) = &kind.node.value else {
            let kind_name = &kind.key;
            reader.push(Mistake {
                at: Some(kind.node.at),
                remedy: Some(format!("write {kind_name} \"name\" {{ plugin_data {{ … }} }}")),
                wrong_type: true,
                ..Mistake::new(format!("At {}: plugin {kind_name:?} is not a block", kind.node.at))
                    .path(path)
            });
            continue;
        };
        for name in names {
            let path = format!("{path}.{}[{:?}]", kind.key, name.key);
            let Value::Block(items) = &name.node.value else {
                reader.push(Mistake {
                    at: Some(name.node.at),
                    remedy: Some(format!("write {} \"name\" {{ plugin_data {{ … }} }}", kind.key)),
                    wrong_type: true,
                    ..Mistake::new(format!(
                        "At {}: plugin {:?}/{:?} is not a block",
                        name.node.at, kind.key, name.key
                    ))
                    .path(path)
                });
                continue;
            };
            if !seen.insert((&kind.key, &name.key)) {
                reader.push(Mistake {
                    at: Some(name.at),
                    remedy: Some("keep one of them".to_owned()),
                    ..Mistake::new(format!(
                        "plugin {:?}/{:?} declared more than once",
                        kind.key, name.key
                    ))
                    .path(path)
                });
                continue;
            }
            let plugin = Reader::new(items.iter().collect(), path, Some(name.at))
                .run(|reader| read_plugin(reader, &kind.key, &name.key));
            plugins.extend(reader.absorb(plugin));
        }
    }
    Some(plugins)
}

fn read_plugin(reader: &mut Reader<'_>, kind: &str, name: &str) -> Option<PluginConfig> {
    reader.tolerate_unknown();
    let section = reader.section("plugin_data").unwrap_or_default();
    let plugin_data_file = reader.string("plugin_data_file").map(PathBuf::from);
    if plugin_data_file.is_some() && reader.has("plugin_data") {
        let sentence = format!(
            "failed to create plugin config for {kind:?}/{name:?}: only one of [plugin_data, \
             plugin_data_file] can be used"
        );
        reader.reject("plugin_data_file", &sentence, "remove one of the two");
    }
    let plugin_cmd = reader.string("plugin_cmd").map(|command| {
        let command = PathBuf::from(command);
        std::path::absolute(&command).unwrap_or(command)
    });
    let plugin_args = reader.strings("plugin_args").unwrap_or_default();
    let plugin_checksum = reader.parsed(
        "plugin_checksum",
        "write the 64 hexadecimal digits that sha256sum prints for the program",
        |text| {
            let mut digest = [0; 32];
            hex::decode_to_slice(text, &mut digest)
                .map_err(|_| format!("plugin {kind:?}/{name:?} has a malformed plugin_checksum"))?;
            Ok(digest)
        },
    );
    if plugin_cmd.is_some() && !reader.has("plugin_checksum") {
        reader.warn(format!("Plugin checksum not configured (plugin {kind:?}/{name:?})"));
    }
    Some(PluginConfig {
        kind: kind.to_owned(),
        name: name.to_owned(),
        section,
        plugin_data_file,
        plugin_cmd,
        plugin_args,
        plugin_checksum,
        enabled: reader.boolean("enabled").unwrap_or(true),
    })
}
