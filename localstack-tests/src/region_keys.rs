//! The table of keys that sign EC2 identity documents, made from the certificates that AWS
//! publishes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

/// The columns of the table.
const HEADER: &str = "region\tkind\tserial\tfingerprint\tnot_after\tissuer\tpublic_key\n";
const END: &str = "-----END CERTIFICATE-----";

/// Where the table lies in the tree.
pub fn table_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../providers/aws/src/regions.tsv")
}

/// The table as it follows from the certificates in the tree, one line for each key that documents
/// are verified with: of the kinds `RSA-2048` and `RSA`.
///
/// # Errors
/// Where a file cannot be read or is not as its neighbours are.
pub fn table() -> anyhow::Result<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/aws-iid-certificates");
    let mut files: Vec<PathBuf> = Vec::new();
    for file in fs::read_dir(&folder)? {
        files.push(file?.path());
    }
    files.sort();
    let mut table = HEADER.to_owned();
    for file in files {
        let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if file.extension().is_some_and(|extension| extension == "pem")
            && !stem.starts_with("group-")
        {
            let text = fs::read_to_string(&file)?;
            add_region(&mut table, stem, &text)
                .with_context(|| format!("cannot read {}", file.display()))?;
        }
    }
    Ok(table)
}

fn add_region(table: &mut String, region: &str, text: &str) -> anyhow::Result<()> {
    for block in text.split_inclusive(END).filter(|block| block.contains(END)) {
        let (comment, pem) = block.split_at(block.find("-----BEGIN").context("no certificate")?);
        let (_, kind) = comment.split_once("kind: ").context("no kind")?;
        let kind = kind.split_whitespace().next().unwrap_or_default();
        match kind {
            "RSA-2048" | "RSA" => table.push_str(&line(region, kind, pem)?),
            "DSA" => {}
            other => bail!("unknown kind {other:?}"),
        }
    }
    Ok(())
}

fn line(region: &str, kind: &str, pem: &str) -> anyhow::Result<String> {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(base64)?;
    let certificate = Certificate::from_der(&der)?;
    let tbs = certificate.tbs_certificate();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let not_after = tbs.validity().not_after.to_date_time();
    Ok(format!(
        "{region}\t{kind}\t{}\t{}\t{not_after}\t{}\t{}\n",
        hex(tbs.serial_number().as_bytes()),
        hex(digest(&SHA256, &der).as_ref()),
        STANDARD.encode(tbs.issuer().to_der()?),
        STANDARD.encode(tbs.subject_public_key_info().to_der()?),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_the_tree_is_that_of_the_certificates() {
        let found = fs::read_to_string(table_path()).unwrap();
        assert_eq!(found, table().unwrap(), "write it anew with --bin aws_region_keys");
    }
}
