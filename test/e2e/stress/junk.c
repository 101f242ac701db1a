/*
 * Sends junk out of a TUN device, so that whoever reads the device gets it: random bytes, mutated packets of all
 * protocols, copies of live packets with a flipped byte, segments for connections that it opened itself, and
 * super-packets with a virtio-net header of their own.
 *
 *     junk INTERFACE SEED MILLISECONDS
 *
 * It never takes part in the connections of others: its own use source ports below 1024, and a copy of a live packet
 * differs from it in exactly one byte, which every checksum finds. The last line tells what was sent.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_PACKET 65535
#define KEPT 64
#define OWN 256
#define EPHEMERAL 32768

enum { TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58 };
enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32 };

static uint64_t state;

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16);
}

static uint32_t below(uint32_t n)
{
    return draw() % n;
}

static void put16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, v >> 16);
    put16(p + 2, v);
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) << 16 | get16(p + 2);
}

static void fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) p[i] = (uint8_t)draw();
}

static uint32_t sum(const uint8_t *p, size_t n, uint32_t acc)
{
    for (; n > 1; n -= 2, p += 2) acc += get16(p);
    return n == 1 ? acc + ((uint32_t)*p << 8) : acc;
}

static uint32_t fold(uint32_t acc)
{
    while (acc >> 16) acc = (acc & 0xffff) + (acc >> 16);
    return ~acc & 0xffff;
}

/* Where the L4 header starts and what it is; 0 when that cannot be told. Extension headers are not followed. */
static size_t l4_of(const uint8_t *p, size_t n, int *protocol)
{
    if (n < 20) return 0;
    if (p[0] >> 4 == 4) {
        size_t header = (size_t)(p[0] & 15) * 4;
        *protocol = p[9];
        return header >= 20 && header < n ? header : 0;
    }
    if (p[0] >> 4 != 6 || n <= 40) return 0;
    *protocol = p[6];
    return 40;
}

/* Makes all checksums right, as far as the packet has any. */
static void finish(uint8_t *p, size_t n)
{
    int protocol = 0;
    size_t l4 = l4_of(p, n, &protocol);
    if (l4 == 0) return;
    size_t at = protocol == TCP ? 16 : protocol == UDP ? 6 : 2;
    size_t length = n - l4;
    int v4 = p[0] >> 4 == 4;
    if ((protocol == TCP || protocol == UDP || protocol == ICMP || protocol == ICMPV6) && length >= at + 2) {
        uint32_t acc = 0;
        if (protocol != ICMP) {
            acc = v4 ? sum(p + 12, 8, 0) : sum(p + 8, 32, 0);
            acc += (uint32_t)protocol + (uint32_t)length;
        }
        put16(p + l4 + at, 0);
        put16(p + l4 + at, fold(sum(p + l4, length, acc)));
    }
    if (v4) {
        put16(p + 10, 0);
        put16(p + 10, fold(sum(p, l4, 0)));
    }
}

static const uint8_t CLIENT4[4] = {198, 18, 0, 1};
static const uint8_t SERVER4[4] = {10, 99, 0, 80};
static const uint8_t CLIENT6[16] = {0xfd, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
static const uint8_t SERVER6[16] = {0xfd, 0, 0, 0x99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80};
static const uint16_t PORTS[] = {7100, 7101, 7102, 7, 53, 0};

/* Writes an IP header for `length` bytes behind it; returns its length. */
static size_t ip_header(uint8_t *p, int v4, int protocol, size_t length)
{
    if (v4) {
        memset(p, 0, 20);
        p[0] = 0x45;
        put16(p + 2, (uint32_t)length + 20);
        put16(p + 4, draw());
        p[8] = 64;
        p[9] = (uint8_t)protocol;
        memcpy(p + 12, CLIENT4, 4);
        memcpy(p + 16, SERVER4, 4);
        /* Neighbours have no kernel that would answer. */
        if (below(2)) p[15] = (uint8_t)(2 + below(250));
        if (below(64) == 0) fill(p + 16, 4);
        return 20;
    }
    memset(p, 0, 40);
    p[0] = 0x60;
    put16(p + 4, (uint32_t)length);
    p[6] = (uint8_t)protocol;
    p[7] = 64;
    memcpy(p + 8, CLIENT6, 16);
    memcpy(p + 24, SERVER6, 16);
    if (below(2)) p[23] = (uint8_t)(2 + below(250));
    if (below(64) == 0) fill(p + 24, 16);
    return 40;
}

/*
 * Never an ephemeral port: whoever connects to one of this host's from this host may by chance have it on both ends,
 * and is then connected to himself.
 */
static uint32_t port(void)
{
    uint32_t i = below(sizeof PORTS / sizeof *PORTS + 1);
    return i < sizeof PORTS / sizeof *PORTS ? PORTS[i] : below(EPHEMERAL);
}

static size_t tcp_options(uint8_t *p)
{
    size_t n = 0;
    if (below(2)) {
        put32(p, 0x020405b4);
        n += 4;
    }
    if (below(2)) {
        put32(p + n, 0x01030300 | below(20));
        n += 4;
    }
    if (below(2)) {
        put32(p + n, 0x0101080a);
        fill(p + n + 4, 8);
        n += 12;
    }
    if (below(4) == 0) {
        put32(p + n, 0x01010500 | 18);
        fill(p + n + 4, 16);
        n += 20;
    }
    if (n < 36 && below(8) == 0) {
        fill(p + n, 4);
        n += 4;
    }
    return n > 40 ? 40 : n;
}

static size_t tcp(uint8_t *p, uint32_t source, uint32_t destination, uint32_t seq, uint32_t ack, int flags, size_t data)
{
    size_t header = 20 + tcp_options(p + 20);
    put16(p, source);
    put16(p + 2, destination);
    put32(p + 4, seq);
    put32(p + 8, ack);
    p[12] = (uint8_t)(header / 4 << 4);
    p[13] = (uint8_t)flags;
    put16(p + 14, draw());
    put16(p + 18, below(4) == 0 ? draw() : 0);
    fill(p + header, data);
    return header + data;
}

/* A packet that is right in all its parts. */
static size_t valid(uint8_t *p)
{
    int v4 = (int)below(2);
    uint8_t body[2200];
    size_t data = below(4) == 0 ? below(1400) : below(40);
    uint32_t source = 1 + below(1023);
    size_t n;
    int protocol;
    switch (below(8)) {
    case 0:
    case 1:
    case 2: {
        static const uint8_t flags[] = {SYN, SYN, SYN, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, SYN | ACK, 0};
        int chosen = flags[below(sizeof flags)];
        protocol = TCP;
        n = tcp(body, source, port(), draw(), draw(), chosen, chosen & SYN && below(4) ? 0 : data);
        break;
    }
    case 3:
    case 4:
        protocol = UDP;
        put16(body, source);
        put16(body + 2, port());
        put16(body + 4, (uint32_t)data + 8);
        fill(body + 8, data);
        n = data + 8;
        break;
    case 5:
        /* Echo, or any other type. */
        protocol = v4 ? ICMP : ICMPV6;
        body[0] = below(2) ? (v4 ? 8 : 128) : (uint8_t)draw();
        body[1] = 0;
        fill(body + 4, data + 4);
        n = data + 8;
        break;
    case 6: {
        /* An error about a packet of ours. */
        size_t header;
        protocol = v4 ? ICMP : ICMPV6;
        body[0] = v4 ? 3 : 1;
        body[1] = (uint8_t)below(8);
        put32(body + 4, below(2) ? 1280 : 0);
        header = ip_header(body + 8, v4, TCP, 20 + data);
        n = 8 + header + tcp(body + 8 + header, port(), 32768 + below(28000), draw(), draw(), ACK, data);
        break;
    }
    default:
        /* Extension headers, fragments, other protocols. */
        protocol = v4 ? (int)below(256) : (int)(uint8_t[]){0, 43, 44, 60, 59, 51, 135}[below(7)];
        fill(body, data + 48);
        body[0] = TCP;
        body[1] = (uint8_t)below(4);
        n = data + 48;
    }
    size_t header = ip_header(p, v4, protocol, n);
    if (v4 && below(16) == 0) put16(p + 6, below(2) ? 0x2000 : draw());
    memcpy(p + header, body, n);
    finish(p, header + n);
    return header + n;
}

static size_t mutated(uint8_t *p)
{
    size_t n = valid(p);
    if (below(4) == 0) n = below((uint32_t)n + 1);
    else if (below(8) == 0) {
        size_t more = below(100);
        fill(p + n, more);
        n += more;
    }
    if (n == 0) return 0;
    for (uint32_t k = below(6); k > 0; k--) {
        size_t at = below(2) ? below((uint32_t)n) : below(n < 60 ? (uint32_t)n : 60);
        switch (below(4)) {
        case 0: p[at] = (uint8_t)draw(); break;
        case 1: p[at] = 0; break;
        case 2: p[at] = 0xff; break;
        default: p[at] ^= (uint8_t)(1u << below(8));
        }
    }
    if (below(2)) {
        int protocol = 0;
        size_t l4 = l4_of(p, n, &protocol);
        if (l4 > 0 && n >= l4 + 4) p[l4 + 2] &= 0x7f;
        finish(p, n);
    }
    return n;
}

/* Live packets, with complete checksums. */
static struct { size_t length; uint8_t bytes[2048]; } kept[KEPT];
static size_t kept_count;

/* Connections of our own: the numbers that the other end expects. */
static struct { int v4; uint8_t source[16], destination[16]; uint32_t port, to, seq, ack; } own[OWN];
static size_t own_count;

static void look_at(const uint8_t *p, size_t n, int outgoing)
{
    int protocol = 0;
    size_t l4 = l4_of(p, n, &protocol);
    if (l4 == 0 || protocol != TCP || n < l4 + 20) return;
    int v4 = p[0] >> 4 == 4;
    if (outgoing) {
        if (n > sizeof kept->bytes || get16(p + l4) < EPHEMERAL) return;
        size_t i = kept_count++ % KEPT;
        memcpy(kept[i].bytes, p, n);
        kept[i].length = n;
        finish(kept[i].bytes, n);
        return;
    }
    if ((p[l4 + 13] & (SYN | ACK)) != (SYN | ACK) || get16(p + l4 + 2) > 1023) return;
    size_t i = own_count++ % OWN;
    size_t size = v4 ? 4 : 16;
    own[i].v4 = v4;
    memcpy(own[i].source, p + (v4 ? 16 : 24), size);
    memcpy(own[i].destination, p + (v4 ? 12 : 8), size);
    own[i].port = get16(p + l4 + 2);
    own[i].to = get16(p + l4);
    own[i].seq = get32(p + l4 + 8);
    own[i].ack = get32(p + l4 + 4) + 1;
}

static size_t flipped(uint8_t *p)
{
    size_t i = below(KEPT);
    size_t n = kept[i].length;
    if (n == 0) return 0;
    memcpy(p, kept[i].bytes, n);
    p[below((uint32_t)n)] ^= (uint8_t)(1u << below(8));
    return n;
}

static size_t own_segment(uint8_t *p)
{
    size_t i = below(OWN);
    if (own[i].port == 0) return 0;
    static const uint8_t flags[] = {ACK, ACK, ACK | PSH, ACK | PSH, ACK | FIN, SYN, RST, RST | ACK, ACK | URG, SYN | ACK, 0};
    size_t data = below(2) ? below(1400) : 0;
    uint32_t seq = own[i].seq;
    uint32_t ack = own[i].ack;
    if (below(2)) seq += below(4) ? below(70000) - 2000 : draw();
    if (below(4) == 0) ack += below(2) ? below(4000) - 2000 : draw();
    int chosen = below(8) ? flags[below(4)] : flags[below(sizeof flags)];
    uint8_t body[1500];
    size_t n = tcp(body, own[i].port, own[i].to, seq, ack, chosen, data);
    size_t header = ip_header(p, own[i].v4, TCP, n);
    memcpy(p + (own[i].v4 ? 12 : 8), own[i].source, own[i].v4 ? 4 : 16);
    memcpy(p + (own[i].v4 ? 16 : 24), own[i].destination, own[i].v4 ? 4 : 16);
    memcpy(p + header, body, n);
    finish(p, header + n);
    if (seq == own[i].seq && (chosen & (SYN | RST)) == 0) own[i].seq += (uint32_t)data;
    return header + n;
}

/* A super-packet with a header of its own, right or wrong. */
static ssize_t send_super(int fd, uint8_t *p)
{
    struct virtio_net_hdr header;
    int v4 = (int)below(2);
    int udp = (int)below(2);
    size_t data = 1 + below(20000);
    size_t l4 = v4 ? 20 : 40;
    ip_header(p, v4, udp ? UDP : TCP, data + (udp ? 8 : 20));
    size_t n = l4;
    if (udp) {
        put16(p + l4, 1 + below(1023));
        put16(p + l4 + 2, port());
        put16(p + l4 + 4, (uint32_t)data + 8);
        put16(p + l4 + 6, 0);
        fill(p + l4 + 8, data);
        n += 8 + data;
    } else {
        memset(p + l4, 0, 20);
        put16(p + l4, 1 + below(1023));
        put16(p + l4 + 2, port());
        fill(p + l4 + 4, 8);
        p[l4 + 12] = 0x50;
        p[l4 + 13] = ACK | PSH;
        fill(p + l4 + 20, data);
        n += 20 + data;
    }
    finish(p, l4);
    memset(&header, 0, sizeof header);
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.gso_type = udp ? 5 : v4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    header.hdr_len = (uint16_t)(l4 + (udp ? 8 : 20));
    header.gso_size = (uint16_t)(below(8) ? 100 + below(1300) : draw());
    header.csum_start = (uint16_t)l4;
    header.csum_offset = udp ? 6 : 16;
    if (below(8) == 0) fill((uint8_t *)&header, sizeof header);
    struct iovec parts[2] = {{&header, sizeof header}, {p, n}};
    return writev(fd, parts, 2);
}

static int open_packet(const char *name, int vnet)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(vnet ? ETH_P_IP : ETH_P_ALL)};
    int on = 1;
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, vnet ? 0 : htons(ETH_P_ALL));
    address.sll_ifindex = (int)if_nametoindex(name);
    if (fd < 0 || address.sll_ifindex == 0) {
        perror(name);
        exit(1);
    }
    if (vnet && setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) < 0) {
        perror("PACKET_VNET_HDR");
        exit(1);
    }
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        perror("bind");
        exit(1);
    }
    return fd;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int main(int argc, char **argv)
{
    static uint8_t packet[MAX_PACKET + 4096];
    unsigned long long sent = 0, refused = 0;
    if (argc != 4) {
        fprintf(stderr, "usage: junk INTERFACE SEED MILLISECONDS\n");
        return 2;
    }
    int fd = open_packet(argv[1], 0);
    int vnet = open_packet(argv[1], 1);
    state = strtoull(argv[2], NULL, 10) * 2654435761u + 88172645463325252ull;
    int64_t end = now_ms() + atoll(argv[3]);
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(argv[1])};
    for (unsigned long round = 0; round % 64 != 0 || now_ms() < end; round++) {
        if (round % 16 == 0) {
            struct sockaddr_ll from;
            socklen_t size = sizeof from;
            for (int i = 0; i < 16; i++, size = sizeof from) {
                ssize_t n = recvfrom(fd, packet, sizeof packet, 0, (struct sockaddr *)&from, &size);
                if (n <= 0) break;
                look_at(packet, (size_t)n, from.sll_pkttype == PACKET_OUTGOING);
            }
        }
        size_t n = 0;
        ssize_t result;
        switch (below(8)) {
        case 0:
            n = below(8) ? below(200) : below(3000);
            fill(packet, n);
            if (n > 0 && below(2)) packet[0] = (uint8_t)((packet[0] & 15) | (below(2) ? 0x40 : 0x60));
            break;
        case 1:
        case 2:
        case 3: n = mutated(packet); break;
        case 4: n = valid(packet); break;
        case 5: n = flipped(packet); break;
        case 6: n = own_segment(packet); break;
        default: break;
        }
        if (n == 0) {
            result = send_super(vnet, packet);
        } else {
            to.sll_protocol = htons(packet[0] >> 4 == 6 ? ETH_P_IPV6 : ETH_P_IP);
            result = sendto(fd, packet, n, 0, (struct sockaddr *)&to, sizeof to);
        }
        if (result >= 0) sent++;
        else if (errno == EAGAIN || errno == ENOBUFS) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            poll(&wait, 1, 1);
        } else refused++;
    }
    printf("{\"sent\":%llu,\"refused\":%llu,\"live\":%zu,\"opened\":%zu}\n", sent, refused, kept_count, own_count);
    return 0;
}
