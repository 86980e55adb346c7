#!/usr/bin/env bash
# Makes access.log beside this script: a real nginx (Debian 12's nginx-light) is asked by a real curl for the pages of a small site.
# Everything stays on loopback, in a directory of its own that is removed afterwards; no service is started.
#
#     apt-get install --no-install-recommends nginx-light curl
#     clicks/sample/make.sh
#
# The clients' addresses are given in X-Forwarded-For, as by a proxy in front: public servers of address and name registries all over
# the world, so no person's. Times and byte counts differ from run to run, the requests do not (RANDOM is seeded).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
chmod 755 "$dir" # nginx's worker is another user
port=${PORT:-18099}
nginx_pid=
cleanup() {
  if [ -n "$nginx_pid" ]; then kill "$nginx_pid" 2>/dev/null || true; wait "$nginx_pid" 2>/dev/null || true; fi
  rm -rf "$dir"
}
trap cleanup EXIT

# --- the site -------------------------------------------------------------------------------------------------------------
mkdir -p "$dir/site/product" "$dir/site/help" "$dir/tmp"
page() { printf '<!doctype html><title>%s</title><h1>%s</h1><p>%s</p>\n' "$1" "$1" "$2"; }
page 'Shop' 'Lamps, chairs and desks.' >"$dir/site/index.html"
page 'Search' 'What are you looking for?' >"$dir/site/search"
page 'Cart' 'Your cart is empty.' >"$dir/site/cart"
page 'Shipping' 'Two to four days.' >"$dir/site/help/shipping.html"
page 'Café' 'A page whose name is not ASCII.' >"$dir/site/help/café.html"
for i in $(seq 1001 1012); do page "Product $i" "The $i." >"$dir/site/product/$i"; done

# --- nginx, with the log format that nginx's own manual calls "main" ------------------------------------------------------------------
cat >"$dir/nginx.conf" <<CONF
daemon off;
worker_processes 1;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections 64; }
http {
  log_format main '\$remote_addr - \$remote_user [\$time_local] "\$request" \$status \$body_bytes_sent '
                  '"\$http_referer" "\$http_user_agent" "\$http_x_forwarded_for"';
  access_log $dir/access.log main;
  client_body_temp_path $dir/tmp; proxy_temp_path $dir/tmp; fastcgi_temp_path $dir/tmp; uwsgi_temp_path $dir/tmp; scgi_temp_path $dir/tmp;
  client_header_timeout 1s; # for the connection that sends no request
  default_type text/html;
  server {
    listen 127.0.0.1:$port;
    listen [::1]:$port;
    root $dir/site;
    location = /old { return 301 /; }
  }
}
CONF
nginx -p "$dir" -e "$dir/error.log" -c "$dir/nginx.conf" &
nginx_pid=$!
base=http://127.0.0.1:$port
curl -fsS --retry 10 --retry-connrefused -o "$dir/probe" "$base/" 2>"$dir/probe.err"
: >"$dir/access.log" # without the probes; nginx appends

# --- the clients ----------------------------------------------------------------------------------------------------------
addresses=(
  8.8.8.8 9.9.9.9 1.1.1.1 193.0.6.139 200.3.14.10 196.216.2.6 202.12.29.175 203.119.1.1 194.0.0.53 194.0.9.1
  200.160.2.3 203.119.25.1 192.36.144.107 185.159.196.2 198.41.0.4 199.7.83.42 192.58.128.30 193.0.14.129 202.12.27.33 195.226.187.130
  2001:4860:4860::8888 2620:fe::fe 2001:67c:2e8:22::c100:68b 2001:13c7:7002:4000::10 2001:42d0:0:200::6 2001:dd8:9:2::101:175
  2001:12ff:0:2::3 2001:dc4::1 2a02:568:fe02::de 2001:500:9f::42
)
agents=(
  'Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Safari/537.36'
  'Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15'
  'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
  'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1'
  'Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/138.0.0.0 Mobile Safari/537.36'
  'curl/7.88.1'
  'An "odd" agent \ with quotes'
)
targets=(
  / / / /product/1001 /product/1002 /product/1003 /product/1004 /product/1007 /product/1010 /product/1012
  '/search?q=lamp' '/search?q=desk+lamp&page=2' '/search?q=caf%C3%A9' '/search?q=%22oak%22&sort=price' /cart /help/shipping.html
  '/?utm_source=newsletter&utm_medium=email' /help/caf%C3%A9.html /old /favicon.ico /product/9999 /robots.txt
)
referers=('' '' "$base/" 'https://www.example.org/search?q=lamps')
RANDOM=20260131
pick() { local -n from=$1; picked=${from[RANDOM % ${#from[@]}]}; }

ask() { curl -sS --max-time 10 -o "$dir/body" "$@" || true; }
for i in $(seq 330); do
  pick addresses; address=$picked
  pick agents; agent=$picked
  pick targets; target=$picked
  pick referers; referer=$picked
  forwarded=$address
  case $((i % 11)) in
    3) forwarded="$address, 10.0.0.7" ;;            # a proxy behind the proxy
    7) forwarded="192.168.1.20, $address" ;;        # a client that is behind one itself
  esac
  ask -A "$agent" -e "$referer" -H "X-Forwarded-For: $forwarded" "$base$target"
done

# What real logs have besides: no proxy, IPv6, HEAD and POST, a user, no agent, a client that speaks TLS to the wrong port, no request at all.
ask "$base/"
ask "http://[::1]:$port/product/1001"
ask -I -H 'X-Forwarded-For: 193.0.6.139' "$base/cart"
ask -d 'item=1001' -H 'X-Forwarded-For: 193.0.6.139' "$base/cart"
ask -u 'jane doe:x' -H 'X-Forwarded-For: 200.3.14.10' "$base/cart"
ask -A '' -H 'X-Forwarded-For: unknown' "$base/product/1002"
ask -H 'X-Forwarded-For: [2001:4860:4860::8888]:44321' "$base/product/1003"
ask -k "https://127.0.0.1:$port/" 2>"$dir/tls.err"
ask --http0.9 -X "bad" "$base/"
{ exec 3<>"/dev/tcp/127.0.0.1/$port" && printf '\r\n\r\n' >&3 && cat <&3 >"$dir/raw"; exec 3>&-; } || true

kill -QUIT "$nginx_pid" # finish what is open, then end: the log is whole
wait "$nginx_pid" || true
nginx_pid=
cp "$dir/access.log" "$here/access.log"
wc -l "$here/access.log"
