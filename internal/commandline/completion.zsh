#compdef PROGRAM
# zsh completion for PROGRAM: source <(PROGRAM completion zsh), after compinit
_PROGRAM() {
	local word help
	local -a candidates
	while IFS=$'\t' read -r word help; do
		candidates+=("${word//:/\\:}:$help")
	done < <("${words[1]}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
	if (( $#candidates )); then
		_describe PROGRAM candidates
	else
		_files
	fi
}
compdef _PROGRAM PROGRAM
