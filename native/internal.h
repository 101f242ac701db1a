/*
 * Shared by the files of the addon. Rules that hold everywhere:
 *
 * - An exported function takes int32 arguments and returns an int32: >= 0 is success, < 0 is -errno. It never throws.
 * - Memory is named by a slab id and offsets. Pointers are fetched anew in every call, since the owner of the
 *   ArrayBuffer may detach or resize it between two calls (never during one: no JavaScript runs meanwhile).
 * - Only descriptors that this environment opened or adopted can be used.
 * - All state hangs on `struct addon`, one per environment. There are no globals.
 */
#ifndef TUNRELAY_INTERNAL_H
#define TUNRELAY_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <node_api.h>

#define ABI_VERSION 2
#define MAX_SLABS 16
#define MAX_ARGS 8
#define MAX_BATCH 1024 /* packets, events or datagrams in one call */
#define DESC_WORDS 20  /* tcpConnect and udpOpen */

/* Flags of an entry in the descriptor table; 0 means: not ours. */
#define FD_OWNED 1
#define FD_UDP_KEPT 2  /* datagrams of this socket wait in `kept` */
#define FD_UDP_ERROR 4 /* an error was reported, its details are in the socket's error queue */

struct poller;
struct udp_scratch;
struct udp_kept;

/* Everything one environment (main thread or worker) owns. */
struct addon {
  napi_env env;
  napi_ref slabs[MAX_SLABS];
  uint8_t *fds; /* FD_* flags, indexed by descriptor */
  int32_t fd_cap;
  struct poller *poller;      /* NULL when closed */
  struct udp_scratch *scratch; /* made by the first udpRead or udpWrite */
  struct udp_kept *kept;
  napi_async_cleanup_hook_handle hook; /* set while the environment ends and poll handles are still closing */
  int poll_handles;                    /* libuv handles whose close callback has not run */
  int refs;                            /* instance data 1, plus one per poll handle */
};

/* A slab for the duration of one call. */
struct slab {
  uint8_t *base;
  uint64_t size;
};

/* 0, or -EBADF when no slab has this id. A detached buffer has size 0. */
int32_t slab_get(struct addon *a, int32_t id, struct slab *out);

static inline int slab_has(const struct slab *s, int32_t off, int64_t len) {
  return off >= 0 && len >= 0 && (uint64_t)off + (uint64_t)len <= s->size;
}

/* `words` int32 words at `off`: 0, -EFAULT outside the slab, -EINVAL when not 4-byte aligned. */
int32_t slab_words(const struct slab *s, int32_t off, int64_t words, int32_t **out);

/* The bytes [off, limit), 0 or -EFAULT. */
int32_t slab_range(const struct slab *s, int32_t off, int32_t limit);

/* A 16-byte interface name with a NUL in it: 0, -EFAULT, -EINVAL. */
int32_t slab_name(const struct slab *s, int32_t off, char name[16]);

static inline int fd_owned(const struct addon *a, int32_t fd) {
  return fd >= 0 && fd < a->fd_cap && a->fds[fd] != 0;
}

/* Enter a fresh descriptor; on failure closes it and returns -errno, else returns fd. */
int32_t fd_own(struct addon *a, int32_t fd);
/* Forget and close an owned descriptor. */
int32_t fd_close(struct addon *a, int32_t fd);

/* poller.c */
int32_t poller_ready(const struct addon *a); /* 0 or -ENXIO */
int32_t poller_ctl(struct addon *a, int op, int32_t fd, int32_t events, int32_t token, int32_t gen);
int32_t poller_open(struct addon *a, napi_value callback);
void poller_shut(struct addon *a);
int poller_is_fd(const struct addon *a, int32_t fd);
int32_t fn_poller_close(struct addon *a, const int32_t *v);
int32_t fn_poller_ref(struct addon *a, const int32_t *v);
int32_t fn_poller_add(struct addon *a, const int32_t *v);
int32_t fn_poller_modify(struct addon *a, const int32_t *v);
int32_t fn_poller_delete(struct addon *a, const int32_t *v);
int32_t fn_poller_wait(struct addon *a, const int32_t *v);

/* addon.c */
void addon_unref(struct addon *a);

/* tun.c */
int32_t fn_tun_open(struct addon *a, const int32_t *v);
int32_t fn_tun_get_features(struct addon *a, const int32_t *v);
int32_t fn_tun_set_vnet_hdr_size(struct addon *a, const int32_t *v);
int32_t fn_tun_set_offload(struct addon *a, const int32_t *v);
int32_t fn_tun_set_send_buffer(struct addon *a, const int32_t *v);
int32_t fn_tun_get_iff(struct addon *a, const int32_t *v);
int32_t fn_tun_set_persist(struct addon *a, const int32_t *v);
int32_t fn_tun_read(struct addon *a, const int32_t *v);
int32_t fn_tun_write(struct addon *a, const int32_t *v);

/* socket.c */
/* Of a descriptor: a Unix socket, whose address words are the offset and the length of its path. */
#define FAMILY_UNIX 1

/* An address in the words [family 4|6, port, 16 bytes] of a descriptor. Returns its length or -EINVAL. */
int32_t address_from_words(int32_t family, int32_t port, const int32_t *addr, int32_t scope, struct sockaddr_storage *out);
/* The reverse, 6 words; family 0 and zeros for anything but IPv4 and IPv6. */
void address_to_words(const struct sockaddr_storage *from, int32_t *words);
/*
 * Open a non-blocking socket as the first nine words of `desc` say, with mark and device (which mean nothing to a Unix
 * socket); fills the address.
 */
int32_t socket_open(const struct slab *s, const int32_t *desc, int type, struct sockaddr_storage *to, socklen_t *to_len);
int32_t fn_socket_shutdown(struct addon *a, const int32_t *v);
int32_t fn_socket_reset(struct addon *a, const int32_t *v);
int32_t fn_socket_error(struct addon *a, const int32_t *v);
int32_t fn_socket_name(struct addon *a, const int32_t *v);
int32_t fn_set_option(struct addon *a, const int32_t *v);
int32_t fn_get_option(struct addon *a, const int32_t *v);

/* tcp.c */
int32_t fn_tcp_connect(struct addon *a, const int32_t *v);
int32_t fn_stream_read(struct addon *a, const int32_t *v);
int32_t fn_stream_write(struct addon *a, const int32_t *v);

/* udp.c */
void udp_forget(struct addon *a, int32_t fd);
void udp_free(struct addon *a);
int32_t fn_udp_open(struct addon *a, const int32_t *v);
int32_t fn_udp_read(struct addon *a, const int32_t *v);
int32_t fn_udp_read_error(struct addon *a, const int32_t *v);
int32_t fn_udp_write(struct addon *a, const int32_t *v);

/* netlink.c */
int32_t fn_netlink(struct addon *a, const int32_t *v);

/* Words of the descriptor that tcpConnect and udpOpen share. */
enum {
  D_FAMILY,
  D_PORT,
  D_ADDR, /* four words, network order */
  D_SCOPE = 6,
  D_MARK,
  D_IFNAME,
  D_TOKEN,
  D_GEN,
  D_DATA_OFF,                /* TCP */
  D_UDP_FLAGS = D_DATA_OFF,  /* UDP */
  D_DATA_LEN,
  D_SENT,
  D_CONNECTED,
  D_KEEP_IDLE, /* seconds of silence before the first probe, 0: no keep-alive */
  D_KEEP_INTERVAL, /* seconds between probes */
  D_KEEP_PROBES,
  D_USER_TIMEOUT /* ms that sent data may stay unacknowledged, 0: the kernel's own limit */
};

#endif
