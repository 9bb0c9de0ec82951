//! How an attestation is recorded: the decision and its outcome in one transaction.

use jiff::Timestamp;
use spire_core::clock::whole_second;

use super::node_rows::{Kept, WRITTEN, by_ids, link, unlink, values};
use super::packing;
use super::sql::Statement;
use super::transaction::Transaction;
use super::{Attestation, Change, Node, Recorded, StoreError, join_tokens};

/// See [`super::Store::record_attestation`]. Between writers the token's row and the unique ID of
/// the node's row decide.
pub(super) async fn record(
    tx: &mut Transaction,
    attestation: &Attestation,
    now: Timestamp,
) -> Result<Recorded, StoreError> {
    let ids = std::slice::from_ref(&attestation.agent_id);
    let known = by_ids(tx.reader(), ids).await?.into_iter().next();
    if known.as_ref().is_some_and(|known| known.node.is_banned()) {
        return Ok(Recorded::Banned);
    }
    if let Some(offered) = &attestation.join_token {
        let redemption = join_tokens::redeem(tx, offered, now).await?;
        if !redemption.admits() {
            return Ok(Recorded::Token(redemption));
        }
    } else if known.is_some() && !attestation.can_reattest {
        return Ok(Recorded::AlreadyUsed);
    }
    tx.note(Change::Node(attestation.agent_id.clone()));
    match known {
        Some(known) => attest_again(tx, known, attestation).await,
        None => attest_first(tx, attestation).await,
    }
}

async fn attest_first(
    tx: &mut Transaction,
    attestation: &Attestation,
) -> Result<Recorded, StoreError> {
    let node = Node {
        agent_id: attestation.agent_id.clone(),
        attestation_type: attestation.attestation_type.clone(),
        serial: attestation.serial.clone(),
        expires_at: whole_second(attestation.expires_at),
        new_serial: String::new(),
        new_expires_at: None,
        can_reattest: attestation.can_reattest,
        selectors: attestation.selectors.clone(),
        agent_version: String::new(),
    };
    let numbers = tx.insert_numbered("nodes", &WRITTEN, vec![values(&node)]).await?;
    link(tx, numbers[0], &node.selectors).await?;
    Ok(Recorded::Stored(node))
}

async fn attest_again(
    tx: &mut Transaction,
    known: Kept,
    attestation: &Attestation,
) -> Result<Recorded, StoreError> {
    let text = "UPDATE nodes SET serial_number = ?, expires_at = ?, new_serial_number = '', \
                new_expires_at = NULL, can_reattest = ?, selectors = ?, selector_count = ? \
                WHERE number = ?";
    let update = Statement::new(text)
        .bind(attestation.serial.as_str())
        .bind(attestation.expires_at.as_second())
        .bind(attestation.can_reattest)
        .bind(packing::pack(attestation.selectors.iter()))
        .bind(attestation.selectors.len() as i64)
        .bind(known.number);
    tx.execute(update).await?;
    if known.node.selectors != attestation.selectors {
        unlink(tx, &[(known.number, &known.node.selectors)]).await?;
        link(tx, known.number, &attestation.selectors).await?;
    }
    let node = Node {
        serial: attestation.serial.clone(),
        expires_at: whole_second(attestation.expires_at),
        new_serial: String::new(),
        new_expires_at: None,
        can_reattest: attestation.can_reattest,
        selectors: attestation.selectors.clone(),
        ..known.node
    };
    Ok(Recorded::Stored(node))
}
