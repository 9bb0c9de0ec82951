# A SPIRE agent for a first try, beside the server of conf/server/server.conf:
#
#     mkdir -p .data/agent
#     spire-server bundle show > .data/agent/bootstrap.crt
#     spire-server token generate -spiffeID spiffe://example.org/host
#     spire-agent run -joinToken <token>
#
# A token is needed only once: the agent keeps its identity below data_dir. `spire-agent validate`
# checks this file.

agent {
    # Must be the server's.
    trust_domain = "example.org"

    # Where the server is.
    server_address = "127.0.0.1"
    server_port = 8081

    # The CA certificates by which the agent knows the server when it first connects. The server
    # prints them: spire-server bundle show
    trust_bundle_path = ".data/agent/bootstrap.crt"

    # Instead of the line above: believe whoever answers at server_address the first time. Whoever
    # can intercept that one connection can hand this node forged identities, so use it for nothing
    # but tries.
    # insecure_bootstrap = true

    # Where workloads connect. Any process on this node may ask; what it gets depends on what it is.
    socket_path = "/tmp/spire-agent/public/api.sock"

    # Where the agent keeps its own identity.
    data_dir = ".data/agent"

    # trace, debug, info, warn or error. log_format = "json" suits log collectors.
    log_level = "INFO"

    # Keep identities of workloads, keys included, in data_dir, so that they can be handed out
    # after a restart even while the server is away.
    # persist_cache = true
}

plugins {
    # The agent's private key. With "memory" instead it is gone after a restart, and the node needs
    # a new token.
    KeyManager "disk" {
        plugin_data {
            directory = ".data/agent"
        }
    }

    # How this node proves itself.
    NodeAttestor "join_token" {
        plugin_data {}
    }

    # Tells processes apart by user and group; with discover_workload_path = true also by the path
    # and SHA-256 of their program.
    WorkloadAttestor "unix" {
        plugin_data {}
    }
}

# Tells an orchestrator how the agent is, as GET /live and GET /ready:
# health_checks {
#     listener_enabled = true
#     bind_address = "localhost"
#     bind_port = "8082"
# }
