//! Stories that the real programs go through as real processes, one file each.
#![allow(clippy::unwrap_used, reason = "a test fails where it is")]

mod agent_files;
mod clients;
mod cloud_aws;
mod cloud_azure;
mod cloud_gcp;
mod commands;
mod compromise;
mod demo;
mod evidence;
mod floods;
mod hostile;
mod kill;
mod localstack;
mod mistakes;
mod moving;
mod moving_in;
mod mutual_tls;
mod nested;
mod offline;
mod quick_start;
mod rotation;
mod servers;
mod surroundings;
mod turnover;
mod upstream_aws;
mod upstreams;
