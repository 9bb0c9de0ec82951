//! What a plain Linux node can prove: possession of an X.509 certificate (`x509pop`) or of a join
//! token (`join_token`, the agent's half).
