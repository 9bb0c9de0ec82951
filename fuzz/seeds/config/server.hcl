# A SPIRE server for a first try: `spire-server run`, from the folder above conf/.
#
# It keeps everything below .data/, signs with a CA of its own and takes agents that show a join
# token. Comments show what a production setup changes; `spire-server validate` checks this file.

server {
    # The name in every SPIFFE ID that this server vouches for: spiffe://example.org/… It cannot be
    # changed once identities have been issued.
    trust_domain = "example.org"

    # Where agents connect. A first try stays on this machine; use "0.0.0.0" for a fleet.
    bind_address = "127.0.0.1"
    bind_port = 8081

    # Where operators connect: the `spire-server` commands use this socket, and whoever can write
    # to it is an administrator.
    socket_path = "/tmp/spire-server/private/api.sock"

    # Made where it is absent.
    data_dir = ".data/server"

    # trace, debug, info, warn or error. log_format = "json" suits log collectors.
    log_level = "INFO"

    # How long the CA lives, and what it signs. An SVID never outlives the CA, so keep its
    # lifetime below a sixth of ca_ttl.
    ca_ttl = "24h"
    default_x509_svid_ttl = "1h"
    default_jwt_svid_ttl = "5m"

    ca_subject {
        country = ["US"]
        organization = ["SPIFFE"]
        common_name = ""
    }
}

plugins {
    # Registration entries, agents and bundles.
    DataStore "sql" {
        plugin_data {
            database_type = "sqlite3"
            connection_string = ".data/server/datastore.sqlite3"
        }
    }

    # The server's private keys. With "memory" instead they are gone after a restart, and the
    # server makes a new CA.
    KeyManager "disk" {
        plugin_data {
            keys_path = ".data/server/keys.json"
        }
    }

    # How nodes prove themselves. A token is made by `spire-server token generate` and used once.
    NodeAttestor "join_token" {
        plugin_data {}
    }

    # Signs the server's CA by one that you keep, instead of by itself:
    # UpstreamAuthority "disk" {
    #     plugin_data {
    #         key_file_path = "/etc/spire/upstream.key"
    #         cert_file_path = "/etc/spire/upstream.crt"
    #     }
    # }
}

# Tells an orchestrator how the server is, as GET /live and GET /ready:
# health_checks {
#     listener_enabled = true
#     bind_address = "localhost"
#     bind_port = "8080"
# }
