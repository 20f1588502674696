#!/usr/bin/env bash
# filter_scp.pl [--exclude] [-f <field>] <id-list> [<in.scp>] > <out.scp>
exec "$(dirname "$(readlink -f "$0")")/kaldi_name.sh" filter_scp.pl "$@"
