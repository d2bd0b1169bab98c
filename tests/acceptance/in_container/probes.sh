# Tries each target "KIND HOST PORT" and prints it with a verdict; many at a time.
export LC_ALL=C

verdict() { # exit code, output
    case $1:$2 in
        0:*) echo open ;;
        *refused*) echo refused ;;
        *'etwork is unreachable'* | *'o route to host'*) echo unreachable ;;
        *'ame or service not known'* | *'failure in name resolution'* | *'nown host'*) echo unknown-name ;;
        *'o address associated'*) echo unknown-name ;;
        124:*) echo silent ;;
        *) echo "other: $1 ${2//$'\n'/ }" ;;
    esac
}

try() { # kind, host, port
    local said ask length code=0
    case $1 in
        tcp) said=$(timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>&1) || code=$? ;;
        icmp)
            said=$(ping -n -c 1 -W 2 "$2" 2>&1) || code=$?
            [[ $code == 1 && $said == *' 0 received'* && $said != *nreachable* ]] && code=124
            ;;
        talk) # in the server's own language: somebody else may answer at the same address
            case $3 in
                6379) ask='PING\r\n' length=5 ;;
                5432) ask='\0\0\0\010\004\322\026\057' length=1 ;;
                *) ask='GET /live HTTP/1.0\r\n\r\n' length=300 ;;
            esac
            # shellcheck disable=SC2016 # for the inner shell
            said=$(timeout 2 bash -c 'exec 3<>"/dev/tcp/$0/$1"; printf "$2" >&3; head -c "$3" <&3' \
                "$2" "$3" "$ask" "$length" 2>&1) || code=$?
            case $3:$said in
                6379:+PONG | 5432:[NS] | 8000:*x-replica*) echo "$1 $2 $3 answered" && return ;;
            esac
            [[ $code == 0 ]] && echo "$1 $2 $3 foreign" && return
            ;;
        name)
            said=$(timeout 2 getent hosts "$2" 2>&1) || code=$?
            [[ $code == 2 ]] && said='Name or service not known'
            ;;
    esac
    printf '%s %s %s %s\n' "$1" "$2" "$3" "$(verdict "$code" "$said")"
}

count=0
for target; do
    # shellcheck disable=SC2086 # three words
    try $target &
    # A container's processes are limited too.
    ((++count % 30)) || wait
done
wait
