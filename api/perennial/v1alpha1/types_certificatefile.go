package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CertificateFile writes a Certificate's chain, private key and CA to files on the machine that
// runs perenniald, and makes a program there reload them after each change. Only perenniald acts on
// it: the components of Perennial that run in a cluster never write files or run commands.
//
// It is for administrators only, because it runs commands as the user of perenniald. For the same
// reason it is a cluster-scoped object of its own: permission to edit a Certificate does not
// include permission to run commands.
//
// Deleting it keeps the files, because a program may be using them, unless deletionPolicy is
// Delete. CertificateFiles cannot share a directory: the oldest one gets it.
//
// +kubebuilder:object:root=true
// +kubebuilder:storageversion
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels="app.kubernetes.io/version=v0.1.0"
// +kubebuilder:resource:scope=Cluster,shortName=certfile,categories=perennial
// +kubebuilder:printcolumn:name="Ready",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].status`
// +kubebuilder:printcolumn:name="Namespace",type="string",JSONPath=`.spec.certificateRef.namespace`
// +kubebuilder:printcolumn:name="Certificate",type="string",JSONPath=`.spec.certificateRef.name`
// +kubebuilder:printcolumn:name="Directory",type="string",JSONPath=`.spec.directory`
// +kubebuilder:printcolumn:name="Expires",type="string",JSONPath=`.status.deployed.notAfter`,priority=1
// +kubebuilder:printcolumn:name="Status",type="string",JSONPath=`.status.conditions[?(@.type == "Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type="date",JSONPath=`.metadata.creationTimestamp`
type CertificateFile struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Which files are written, and which program reloads them.
	Spec CertificateFileSpec `json:"spec"`

	// The current content of the files. Written by perenniald.
	// +optional
	// +kubebuilder:default={"observedGeneration":-1}
	Status CertificateFileStatus `json:"status,omitempty"`
}

// CertificateFileList is a list of CertificateFiles.
//
// +kubebuilder:object:root=true
type CertificateFileList struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []CertificateFile `json:"items"`
}

// CertificateFileSpec says which files are written, and which program reloads them.
type CertificateFileSpec struct {
	// The Certificate. Its Secret has the content of the files.
	CertificateRef CertificateReference `json:"certificateRef"`

	// Absolute path of the directory with the files. perenniald creates it as a symbolic link to
	// another directory in the same parent, a new one for each version of the certificate. So the
	// change to a new version is atomic, and chain and key always match. The path must be below one of
	// perenniald's roots (--file-root). If something other than such a link exists there, perenniald
	// does not replace it.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`self.matches('^(/[^/[:cntrl:]]+)+$') && !self.matches('/[.][.]?(/|$)')`,message=`directory must be an absolute path without '.', '..', '//' or a '/' at its end, such as /etc/perennial/web`
	Directory string `json:"directory"`

	// Names of the files in the directory.
	// +optional
	// +kubebuilder:default={}
	Files CertificateFileNames `json:"files,omitempty"`

	// Name or number of the user that owns the files and their directory; the user of perenniald if
	// left out. Only a perenniald that runs as root can give files to another user.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([a-z_][-a-z0-9_.]{0,30}[$]?|[0-9]{1,10})$')`,message=`owner must be the name of a user, or its number`
	// +kubebuilder:validation:MaxLength=32
	Owner string `json:"owner,omitempty"`

	// Name or number of the group that owns the files and their directory; the group of perenniald if
	// left out.
	// +optional
	// +kubebuilder:validation:XValidation:rule=`self.matches('^([a-z_][-a-z0-9_.]{0,30}[$]?|[0-9]{1,10})$')`,message=`group must be the name of a group, or its number`
	// +kubebuilder:validation:MaxLength=32
	Group string `json:"group,omitempty"`

	// Permissions of the files, octal, in quotes. The files include the private key, so other users
	// get no permissions.
	// +optional
	// +kubebuilder:default="0600"
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule=`self.matches('^0[46][046]0$')`,message=`mode must be in quotes, let the owner read and others nothing, and execute nothing: "0600", "0640", "0440" or the like`
	Mode string `json:"mode,omitempty"`

	// Permissions of the directory, octal, in quotes.
	// +optional
	// +kubebuilder:default="0755"
	// +kubebuilder:validation:MaxLength=4
	// +kubebuilder:validation:XValidation:rule=`self.matches('^0[57][057][05]$')`,message=`directoryMode must be in quotes, let the owner read and enter, and others not write: "0755", "0750", "0700" or the like`
	DirectoryMode string `json:"directoryMode,omitempty"`

	// What to do after the files have changed. Nothing if left out, for programs that watch their
	// files.
	// +optional
	Reload *CertificateFileReload `json:"reload,omitempty"`

	// What happens to the files when the CertificateFile is deleted or its directory changes: Retain
	// keeps them, and an event names them; Delete removes them, including the private key.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy FileDeletionPolicy `json:"deletionPolicy,omitempty"`
}

// FileDeletionPolicy says what happens to the files of a CertificateFile that is deleted.
// +kubebuilder:validation:Enum=Retain;Delete
type FileDeletionPolicy string

const (
	// FileDeletionPolicyRetain keeps the files.
	FileDeletionPolicyRetain FileDeletionPolicy = "Retain"
	// FileDeletionPolicyDelete removes the files.
	FileDeletionPolicyDelete FileDeletionPolicy = "Delete"
)

// CertificateFileFinalizer keeps a CertificateFile until its files are removed.
const CertificateFileFinalizer = "perennial.dev/certificate-files"

// CertificateReference names a Certificate.
type CertificateReference struct {
	// Namespace of the Certificate.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`

	// Name of the Certificate.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// CertificateFileNames are the names of the files in the directory. Each is a plain name, and no
// two are the same.
//
// +kubebuilder:validation:XValidation:rule=`[[self.?certificate.orValue('tls.crt'), self.?privateKey.orValue('tls.key'), self.?ca.orValue('ca.crt'), self.?combined.orValue("")]].all(names, names.all(name, names.exists_one(other, other == name)))`,message=`files must not have the same name twice`
type CertificateFileNames struct {
	// The certificate, followed by the intermediate CA certificates, PEM.
	// +optional
	// +kubebuilder:default=tls.crt
	Certificate FileName `json:"certificate,omitempty"`

	// The private key, PEM.
	// +optional
	// +kubebuilder:default=tls.key
	PrivateKey FileName `json:"privateKey,omitempty"`

	// The CA's certificate, PEM. Written if the Secret has one.
	// +optional
	// +kubebuilder:default=ca.crt
	CA FileName `json:"ca,omitempty"`

	// Private key and certificate in one file, PEM, in this order, as HAProxy and MongoDB require. Not
	// written if left out.
	// +optional
	Combined FileName `json:"combined,omitempty"`
}

// FileName is a name without a directory.
//
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z0-9_][-A-Za-z0-9._]*$')`,message=`must be a plain file name: letters, digits, '_', '-' and '.', beginning with none of the last two`
type FileName string

// CertificateFileReload says how a program learns that files have changed. perenniald reloads once
// for each change, and retries with growing delays if the reload fails. If perenniald was stopped
// in between, it reloads after its next start.
//
// +kubebuilder:validation:XValidation:rule=`[has(self.command), has(self.signal), has(self.systemdUnit)].filter(x, x).size() == 1`,message=`reload must have exactly one of command, signal and systemdUnit`
type CertificateFileReload struct {
	// Runs a command, as the user of perenniald, without a shell.
	// +optional
	Command *ReloadCommand `json:"command,omitempty"`

	// Sends a signal to a process.
	// +optional
	Signal *ReloadSignal `json:"signal,omitempty"`

	// Makes systemd reload or restart a unit.
	// +optional
	SystemdUnit *ReloadSystemdUnit `json:"systemdUnit,omitempty"`
}

// ReloadCommand is a command to run.
type ReloadCommand struct {
	// The program, as an absolute path, and its arguments, one each: ["/usr/sbin/nginx", "-s",
	// "reload"]. There is no shell, so quotes, variables and pipes have no special meaning. An exit
	// status other than 0 is a failure. The environment has PATH, and PERENNIAL_DIRECTORY with the
	// path of the files.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule=`self.size() > 0 && self[0].startsWith('/')`,message=`args must begin with the absolute path of a program, such as /usr/sbin/nginx`
	// +listType=atomic
	Args []string `json:"args"`

	// How long the command may take, from 1s to 10m. After that it is killed, which counts as a
	// failure.
	// +optional
	// +kubebuilder:default="30s"
	// +kubebuilder:validation:XValidation:rule=`duration(self) >= duration('1s') && duration(self) <= duration('10m')`,message=`timeout must be from 1s to 10m`
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// ReloadSignalName is a signal that programs use for this purpose.
// +kubebuilder:validation:Enum=HUP;USR1;USR2;WINCH;TERM;INT;QUIT
type ReloadSignalName string

// ReloadSignal is a signal to send.
type ReloadSignal struct {
	// The signal, without SIG.
	// +optional
	// +kubebuilder:default=HUP
	Name ReloadSignalName `json:"name,omitempty"`

	// Absolute path of the file that holds the number of the process, such as /run/nginx.pid.
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule=`self.matches('^(/[^/[:cntrl:]]+)+$')`,message=`pidFile must be an absolute path such as /run/nginx.pid`
	PIDFile string `json:"pidFile"`
}

// ReloadAction is what systemd does with a unit.
// +kubebuilder:validation:Enum=reload;restart;reload-or-restart
type ReloadAction string

// ReloadSystemdUnit is a unit of systemd.
type ReloadSystemdUnit struct {
	// Name of the unit, such as nginx.service.
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule=`self.matches('^[A-Za-z0-9_:.@\\\\-]+[.](service|target|socket|path|timer|scope|slice)$') && !self.startsWith('-')`,message=`name must be the name of a unit with its type, such as nginx.service`
	Name string `json:"name"`

	// What systemd does with the unit.
	// +optional
	// +kubebuilder:default=reload
	Action ReloadAction `json:"action,omitempty"`
}

// Types of a CertificateFile's conditions.
const (
	// ConditionReady is True when the files hold the current certificate of a ready Certificate, that
	// certificate has not expired and, with spec.reload, the reload after the last change has
	// succeeded.
	ConditionReady = "Ready"

	// ConditionDeployed is True when the files hold the certificate that the Certificate had when it
	// was last ready.
	ConditionDeployed = "Deployed"

	// ConditionStalled is True, by the rules of kstatus, while the object is not ready and only a
	// person can change that. Otherwise it is absent.
	ConditionStalled = "Stalled"
)

// CertificateFileStatus describes the current content of the files.
type CertificateFileStatus struct {
	// The generation of the spec that the status describes.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready and Deployed. Stalled is present while Ready is not True and only a person can change
	// that.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// The certificate in the files.
	// +optional
	Deployed *DeployedCertificate `json:"deployed,omitempty"`

	// Result of the reload after the last change. Absent without spec.reload.
	// +optional
	Reload *ReloadStatus `json:"reload,omitempty"`
}

// DeployedCertificate is a certificate in files.
type DeployedCertificate struct {
	// Serial number, hexadecimal.
	Serial string `json:"serial"`

	// SHA-256 of the certificate's DER, hexadecimal.
	Fingerprint string `json:"fingerprint"`

	// When the certificate expires.
	NotAfter metav1.Time `json:"notAfter"`

	// When the files were written.
	Time metav1.Time `json:"time"`

	// The directory that the files are in.
	// +optional
	Directory string `json:"directory,omitempty"`
}

// ReloadResult is the result of a reload.
// +kubebuilder:validation:Enum=Succeeded;Failed
type ReloadResult string

const (
	// ReloadSucceeded means that the command ended with status 0, the signal was sent, or systemd
	// reported success.
	ReloadSucceeded ReloadResult = "Succeeded"
	// ReloadFailed means that the reload failed and will be retried.
	ReloadFailed ReloadResult = "Failed"
)

// ReloadStatus is the result of the reload after the last change.
type ReloadStatus struct {
	// Whether a reload is still due for a change.
	// +optional
	Pending bool `json:"pending,omitempty"`

	// When a reload was last attempted.
	// +optional
	LastTime *metav1.Time `json:"lastTime,omitempty"`

	// Result of the last attempt.
	// +optional
	LastResult ReloadResult `json:"lastResult,omitempty"`

	// Number of failures since the last success.
	// +optional
	Failures int32 `json:"failures,omitempty"`

	// Error of the last failure. Absent after a success.
	// +optional
	LastError string `json:"lastError,omitempty"`

	// When the next attempt will be made.
	// +optional
	NextAttempt *metav1.Time `json:"nextAttempt,omitempty"`
}
