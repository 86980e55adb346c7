#!/bin/sh
# Says what is missing, and the command that installs it.  Usage: need.sh TOOL…   (go, cc, make, java, mvn, spin, chromium, promtool, engine)
# Nothing but the shell's own commands: it must work where everything else is missing.
set -u
exec >&2

go_major=1 go_minor=26
java_major=17

# The first package manager there is decides which command is shown; all of them if there is none.
manager=
for m in apt-get dnf brew; do
	if command -v "$m" >/dev/null 2>&1; then
		manager=$m
		break
	fi
done

# install APT DNF BREW: the command for this machine.
install() {
	case $manager in
	apt-get) echo "    apt-get install $1" ;;
	dnf) echo "    dnf install $2" ;;
	brew) echo "    brew install $3" ;;
	*)
		echo "    apt-get install $1    (Debian, Ubuntu)"
		echo "    dnf install $2    (Fedora, RHEL)"
		echo "    brew install $3    (macOS)"
		;;
	esac
}

missing=0
miss() {
	missing=1
	echo "missing: $1"
}

need_go() {
	if ! command -v go >/dev/null 2>&1; then
		miss "Go $go_major.$go_minor or newer"
		install golang-go golang go
		echo "    (where that is older than $go_major.$go_minor: https://go.dev/dl)"
		return
	fi
	have=$(go env GOVERSION 2>/dev/null) || have=
	number=${have#go}
	major=${number%%.*}
	rest=${number#*.}
	minor=${rest%%[!0-9]*}
	case $major$minor in
	'' | *[!0-9]*) major=0 minor=0 ;;
	esac
	if [ "$major" -lt "$go_major" ] || { [ "$major" -eq "$go_major" ] && [ "$minor" -lt "$go_minor" ]; }; then
		miss "Go $go_major.$go_minor or newer (this is ${have:-older, or does not run})"
		install golang-go golang go
		echo "    (where that is older than $go_major.$go_minor: https://go.dev/dl)"
	fi
}

need_cc() {
	for c in ${CC:-cc gcc clang}; do
		if command -v "$c" >/dev/null 2>&1; then
			return
		fi
	done
	miss "a C compiler (the Kafka client is C)"
	install "gcc libc6-dev" gcc gcc
}

need_java() {
	java=java
	if [ -n "${JAVA_HOME:-}" ] && [ -x "$JAVA_HOME/bin/java" ]; then
		java=$JAVA_HOME/bin/java
	fi
	if ! command -v "$java" >/dev/null 2>&1; then
		miss "Java $java_major or newer (Apache Kafka and the schema registry run on it)"
		install openjdk-17-jre-headless java-17-openjdk-headless openjdk@17
		return
	fi
	have=$("$java" -version 2>&1) || have=
	number=${have#*version \"}
	major=${number%%[!0-9]*}
	case $major in
	'' | *[!0-9]*) major=0 ;;
	esac
	if [ "$major" -lt "$java_major" ]; then
		miss "Java $java_major or newer ($java is ${have%%
*})"
		install openjdk-17-jre-headless java-17-openjdk-headless openjdk@17
	fi
}

need_engine() {
	for e in docker podman; do
		if command -v "$e" >/dev/null 2>&1; then
			return
		fi
	done
	miss "Docker or Podman, to build container images"
	install podman podman podman
	echo "    (or Docker: https://docs.docker.com/engine/install)"
}

for tool in "$@"; do
	case $tool in
	go) need_go ;;
	cc) need_cc ;;
	java) need_java ;;
	mvn)
		if ! command -v mvn >/dev/null 2>&1; then
			miss "Maven (it fetches Apache Kafka and the schema registry, once)"
			install maven maven maven
		fi
		;;
	spin)
		if ! command -v spin >/dev/null 2>&1; then
			miss "Spin (it searches the models of the protocol)"
			install spin spin spin
			echo "    (where there is no such package: https://github.com/nimble-code/Spin)"
		fi
		;;
	chromium)
		if ! command -v chromium >/dev/null 2>&1; then
			miss "Chromium (the console is tried in it)"
			install chromium chromium "--cask chromium"
		fi
		;;
	promtool)
		if ! command -v promtool >/dev/null 2>&1; then
			miss "promtool (it tries the rules and alerts; a part of Prometheus)"
			install prometheus golang-github-prometheus prometheus
		fi
		;;
	engine) need_engine ;;
	make)
		if ! command -v make >/dev/null 2>&1; then
			miss make
			install make make make
		fi
		;;
	*)
		echo "need.sh: $tool: must be go, cc, make, java, mvn, spin, chromium, promtool or engine" >&2
		exit 2
		;;
	esac
done
exit $missing
