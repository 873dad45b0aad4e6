"""The host's own unprivileged interfaces: /proc, cgroup files, sock_diag."""
